package main

import (
	"context"
	"fmt"
	"runtime"
	"strconv"
	"syscall"
	"time"

	"towpath.dev/events"
	"towpath.dev/pkg/ledger"
	"towpath.dev/pkg/ledger/fold"
	"towpath.dev/pkg/worker"
)

// handled is a worker on a ledger of some size: each of its messages starts another run of one of the apps that are
// there, and its handler looks at everything of the app that is open.
type handled struct {
	in      *installation
	gateway *worker.Runtime
	build   *worker.Runtime
	next    int // run to start
	arrived chan error
	close   []func()

	cpu, took []time.Duration // of a batch's message each
}

// batch is how many messages are handled between two looks at the clocks.
const batch = 50

func openHandled(ctx context.Context, size int) (*handled, error) {
	in, err := openFilled(ctx, size)
	if err != nil {
		return nil, err
	}
	h := &handled{in: in, arrived: make(chan error, batch), close: []func(){in.Close}, next: size/storyParts + apps}
	if err := h.open(ctx, uint64(size)); err != nil {
		h.Close()
		return nil, err
	}
	return h, nil
}

func (h *handled) open(ctx context.Context, filled uint64) (err error) {
	if h.gateway, err = h.in.runtime(ctx, events.Gateway); err != nil {
		return err
	}
	h.close = append(h.close, h.gateway.Close)
	if h.build, err = h.in.runtime(ctx, events.Build); err != nil {
		return err
	}
	h.close = append(h.close, h.build.Close)
	consuming, stop := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() {
		done <- h.build.Consume(consuming, worker.Consumer{Durable: "build", Concurrency: 1}, handlerFunc(func(_ context.Context, m worker.Message) error {
			if m.Record.Seq <= filled {
				return nil
			}
			a := h.build.Fold.App(m.Record.Subject.App)
			open := 0
			for range a.Open() {
				open++
			}
			if open == 0 {
				return fmt.Errorf("%s has nothing open", a.Name)
			}
			h.arrived <- nil
			return nil
		}))
	}()
	h.close = append(h.close, func() { stop(); <-done })
	return nil
}

// Close ends everything, in the reverse order of its start.
func (h *handled) Close() {
	for i := len(h.close) - 1; i >= 0; i-- {
		h.close[i]()
	}
}

// handle starts a batch of runs, one after the other, each once the one before is handled.
func (h *handled) handle(ctx context.Context) error {
	cpu, begin := cpuTime(), time.Now()
	for range batch {
		app := events.Slug("app-" + strconv.Itoa(h.next%apps))
		subject, event, err := runStart(app, h.next/apps+1)
		if err != nil {
			return err
		}
		if _, err := h.gateway.Append(ctx, subject, event); err != nil {
			return err
		}
		h.next++
		select {
		case err := <-h.arrived:
			if err != nil {
				return err
			}
		case <-time.After(time.Minute):
			return fmt.Errorf("a message of %s has not been handled within a minute", app)
		}
	}
	h.cpu = append(h.cpu, (cpuTime()-cpu)/batch)
	h.took = append(h.took, time.Since(begin)/batch)
	return nil
}

// cpuTime is what this process has used of the processors.
func cpuTime() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// handlingCost measures what a message costs from its event's append to the end of its handling, in processor time of
// everything that takes part (bus, door, writer, worker, their folds) and by the clock, on a ledger with few events and
// on one with many. Only one is open at a time, or the collector would charge the one for the other's memory; few come
// before and after many, so that the machine's moods hit both.
func handlingCost(ctx context.Context, o options) ([]figure, error) {
	var few, many handled
	for _, turn := range []struct {
		size int
		sum  *handled
	}{{o.small, &few}, {o.large, &many}, {o.small, &few}} {
		h, err := handleSome(ctx, turn.size, o.events/2)
		if err != nil {
			return nil, err
		}
		turn.sum.cpu, turn.sum.took = append(turn.sum.cpu, h.cpu...), append(turn.sum.took, h.took...)
	}
	fewCPU, manyCPU := share(few.cpu, 0.5), share(many.cpu, 0.5)
	fewTook, manyTook := share(few.took, 0.5), share(many.took, 0.5)
	return []figure{
		{fmt.Sprintf("a message's handling with %d events in the ledger, processor time", o.small), ms(fewCPU), "", true},
		{fmt.Sprintf("a message's handling with %d events in the ledger, processor time", o.large), ms(manyCPU), "", true},
		{"  many ÷ few, processor time", ratio(manyCPU, fewCPU), "≤ 1.2", float64(manyCPU) <= 1.2*float64(fewCPU)},
		{"  many ÷ few, by the clock (" + ms(manyTook) + ", " + ms(fewTook) + ")", ratio(manyTook, fewTook), "≤ 1.2", float64(manyTook) <= 1.2*float64(fewTook)},
	}, nil
}

// handleSome handles so many messages on a ledger of some size.
func handleSome(ctx context.Context, size, messages int) (*handled, error) {
	h, err := openHandled(ctx, size)
	if err != nil {
		return nil, err
	}
	defer h.Close()
	for round := range 2 + messages/batch {
		if err := h.handle(ctx); err != nil {
			return nil, err
		}
		if round == 1 { // so far it warmed up
			h.cpu, h.took = nil, nil
		}
	}
	return h, nil
}

// heap is what is in use after a collection.
func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// folded is a fold of so many runs, each of its story's first events.
func folded(runs, parts int) (f *fold.Fold, bytes uint64, err error) {
	f = fold.New()
	before := heap()
	seq := uint64(0)
	for n := range runs {
		story, err := wholeStory(events.Slug("app-"+strconv.Itoa(n%apps)), n/apps+1)
		if err != nil {
			return nil, 0, err
		}
		for _, e := range story[:min(parts, len(story))] {
			body, err := e.event.Encode()
			if err != nil {
				return nil, 0, err
			}
			decoded, err := events.Decode(body) // so that it shares nothing with the others
			if err != nil {
				return nil, 0, err
			}
			seq++
			if err := f.Apply(ledger.Record{Seq: seq, Subject: e.subject, Event: decoded, Body: body}); err != nil {
				return nil, 0, err
			}
		}
	}
	return f, heap() - before, nil
}

// memory measures what a fold keeps: for a run that has reached its end, for one whose first promotion
// is yet to come, and for an event of the former.
func memory(_ context.Context, o options) ([]figure, error) {
	runs := o.large / storyParts
	ended, whole, err := folded(runs, storyParts)
	if err != nil {
		return nil, err
	}
	open, part, err := folded(runs, vettedAt)
	if err != nil {
		return nil, err
	}
	kept := float64(whole) / float64(runs)
	figures := []figure{
		{fmt.Sprintf("memory of the fold per ended run, of %d", runs), kib(kept), "", true},
		{"  per event of it", fmt.Sprintf("%.0f B", kept/storyParts), "", true},
		{fmt.Sprintf("memory of the fold per open run, of %d", runs), kib(float64(part) / float64(runs)), "", true},
		{fmt.Sprintf("a snapshot's bytes per event, of %d", ended.Seq()), fmt.Sprintf("%.0f B", float64(len(ended.State().Encode()))/float64(ended.Seq())), "", true},
	}
	if n := len(open.Apps()[0].Unsettled); n != open.Apps()[0].Runs.Len() {
		return nil, fmt.Errorf("of runs that are all open, %d are listed as such", n)
	}
	runtime.KeepAlive(ended)
	return figures, nil
}

func kib(bytes float64) string { return fmt.Sprintf("%.1f KiB", bytes/1024) }
