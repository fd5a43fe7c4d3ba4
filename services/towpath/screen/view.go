package screen

import (
	"fmt"
	"time"

	"towpath.dev/services/gateway/view"
)

// View shows a run that changes: drawn over itself on a terminal, a line for each change elsewhere.
type View struct {
	s        Screen
	draw     func(view.Run, time.Time) []string
	live     *Live
	progress *Progress
	runs     chan view.Run
	done     chan struct{}
}

// redraw keeps times going while nothing else changes.
const redraw = 200 * time.Millisecond

// NewView returns a view that draws with draw, such as Screen.Run, or says what progress has not said
// yet. It needs Close.
func (s Screen) NewView(draw func(view.Run, time.Time) []string, progress *Progress) *View {
	v := &View{s: s, draw: draw, live: s.NewLive(), progress: progress, runs: make(chan view.Run), done: make(chan struct{})}
	go v.keepDrawing()
	return v
}

func (v *View) keepDrawing() {
	defer close(v.done)
	tick := time.NewTicker(redraw)
	defer tick.Stop()
	var run view.Run
	for {
		select {
		case r, open := <-v.runs:
			if !open {
				return
			}
			run = r
			if !v.s.Terminal {
				for _, l := range v.progress.Lines(run, time.Now()) {
					fmt.Fprintln(v.s.Out, l)
				}
			}
		case <-tick.C:
		}
		if run.Run != "" {
			v.live.Draw(v.draw(run, time.Now()))
		}
	}
}

// Show takes the run as it is now. The error is always nil; it is there for client.Client.Follow.
func (v *View) Show(r view.Run) error {
	v.runs <- r
	return nil
}

// Close leaves the last drawing standing.
func (v *View) Close() {
	close(v.runs)
	<-v.done
}
