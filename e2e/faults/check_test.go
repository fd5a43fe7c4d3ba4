package faults

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"towpath.dev/events"
)

const (
	digestA = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	digestB = "sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
)

// told writes a history by hand, as two good runs of an app leave it behind.
type told struct{ history }

func (h *told) say(s events.Subject, chain string, b events.Body) {
	h.records = append(h.records, record{uint64(len(h.records) + 1), s, events.New(s.Writer, time.Unix(1, 0), chain, b)})
}

// carried is one run that got through dev, in its slot.
func (h *told) carried(n int, digest string) {
	const app, env = "hello", "dev"
	chain := fmt.Sprintf("chain-%d", n)
	start := &events.ArtifactPublished{}
	start.Published = events.Published{Artifact: events.Artifact{Digest: digest}, Run: &events.RunStart{App: app}}
	h.say(events.RunStartSubject(1, start.Type(), app, "r", "", n-1, digest), chain, start)
	h.say(events.VetSubject(1, events.TypeVetRunFinished, app, n, "", 1), chain, &events.VetRunFinished{Outcome: events.Success})
	h.say(events.SlotSubject(1, events.TypeSlotTaken, app, env, n), chain, &events.SlotTaken{Slot: n, Run: n, Attempt: 1, Digest: digest, Kind: events.KindDeploy})
	name := h.replica(n)
	h.say(events.SlotSubject(1, events.TypeSlotDecided, app, env, n), chain, &events.SlotDecided{Slot: n, Decision: events.Live, Instances: []events.Instance{{ID: name}}})
	h.say(events.ServiceSubject(1, events.TypeServiceUpgraded, app, n, env, n), chain, &events.ServiceUpgraded{Deployed: events.Deployed{Slot: n, Run: n}})
	h.say(events.VerifySubject(1, events.TypeTestSuiteRunFinished, app, n, env, n, 0, 1), chain, &events.TestSuiteRunFinished{Outcome: events.Success, Trial: events.Trial{Slot: n, Attempt: 1}})
	h.say(events.SlotSubject(1, events.TypeSlotClosed, app, env, n), chain, &events.SlotClosed{Slot: n, Closing: events.Verified})
	h.say(events.PromoteSubject(1, events.TypePipelineRunFinished, app, n, env, "", 1), chain, &events.PipelineRunFinished{Outcome: events.Success})
	h.asked = append(h.asked, asked{app: app, run: n, digest: digest, ends: "done", status: "done", envs: []string{env}, replicas: 1, release: true})
	h.started = append(h.started, name, h.release(n))
	h.containers = []container{
		{name: name, state: "running", app: app, env: env, slot: fmt.Sprint(n), image: "r@" + digest},
		{name: h.release(n), state: "exited", app: app, env: env, slot: fmt.Sprint(n), image: "r@" + digest},
	}
}

func (h *told) replica(slot int) string { return fmt.Sprintf("towpath-1234abcd-hello.dev-%d-1", slot) }
func (h *told) release(slot int) string {
	return fmt.Sprintf("towpath-1234abcd-hello.dev-%d-release", slot)
}

// find is the first record of a type with this slot or run.
func (h *told) find(t events.Type, nth int) int {
	for i, r := range h.records {
		if r.event.Body.Type() == t {
			if nth--; nth == 0 {
				return i
			}
		}
	}
	panic("no such record")
}

func (h *told) drop(t events.Type, nth int) {
	i := h.find(t, nth)
	h.records = slices.Delete(h.records, i, i+1)
}

// again writes a record a second time, under a subject of its own.
func (h *told) again(t events.Type, nth int, change func(*record)) {
	r := h.records[h.find(t, nth)]
	r.seq = uint64(len(h.records) + 1)
	change(&r)
	h.records = append(h.records, r)
}

func twoRuns() *told {
	h := &told{}
	h.carried(1, digestA)
	h.carried(2, digestB)
	return h
}

func TestAGoodHistoryHasNoFault(t *testing.T) {
	if faults := check(twoRuns().history); len(faults) > 0 {
		t.Error(faults)
	}
}

// TestABrokenHistoryIsSeenThrough breaks each promise once: a checker that lets one pass would prove nothing.
func TestABrokenHistoryIsSeenThrough(t *testing.T) {
	elsewhere := func(r *record) { r.subject.Key = "elsewhere" }
	for name, c := range map[string]struct {
		damage func(*told)
		kind   kind
		text   string
	}{
		"an event twice":                 {func(h *told) { h.again(events.TypeVetRunFinished, 2, func(*record) {}) }, doubled, "again as"},
		"a verdict twice":                {func(h *told) { h.again(events.TypeVetRunFinished, 2, elsewhere) }, doubled, "vetting of hello/2 attempt 1"},
		"a promotion that ends twice":    {func(h *told) { h.again(events.TypePipelineRunFinished, 2, elsewhere) }, doubled, "promotion of hello/2 to dev attempt 1"},
		"a verification that ends twice": {func(h *told) { h.again(events.TypeTestSuiteRunFinished, 2, elsewhere) }, doubled, "verification of slot 2"},
		"a slot that is decided twice":   {func(h *told) { h.again(events.TypeSlotDecided, 2, elsewhere) }, doubled, "is decided by"},
		"a slot that is closed twice":    {func(h *told) { h.again(events.TypeSlotClosed, 2, elsewhere) }, doubled, "is closed by"},
		"a slot that is deployed twice":  {func(h *told) { h.again(events.TypeServiceUpgraded, 2, elsewhere) }, doubled, "deployed twice"},
		"one attempt with two slots":     {func(h *told) { h.again(events.TypeSlotTaken, 2, func(r *record) { r.event.Body = third(2) }) }, doubled, "has slots 2 and 3"},
		"a run twice": {func(h *told) {
			h.again(events.TypeArtifactPublished, 2, func(r *record) { elsewhere(r); r.event.ChainID = "other" })
		}, doubled, "has 3 runs, and 2 were asked for"},
		"two images": {func(h *told) {
			h.again(events.TypeArtifactPublished, 2, func(r *record) { elsewhere(r); r.event.Body = published(digestA) })
		}, doubled, "has two images"},
		"a release that ran twice":         {func(h *told) { h.started = append(h.started, h.release(2)) }, doubled, "started 2 times"},
		"a replica that was started twice": {func(h *told) { h.started = append(h.started, h.replica(2)) }, doubled, "started 2 times"},
		"a release that never ran": {func(h *told) {
			h.started = slices.DeleteFunc(h.started, func(s string) bool { return s == h.release(2) })
		}, lost, "never ran"},
		"a run that did not begin":         {func(h *told) { h.asked = append(h.asked, asked{app: "hello", run: 3}) }, lost, "did not begin"},
		"a run without an end":             {func(h *told) { h.asked[1].status = "" }, lost, "came to no end"},
		"a run with a wrong end":           {func(h *told) { h.asked[1].status = "stuck" }, contradiction, "is stuck, and must be done"},
		"a promotion without an end":       {func(h *told) { h.drop(events.TypePipelineRunFinished, 2) }, lost, "has no end"},
		"a slot left open":                 {func(h *told) { h.drop(events.TypeSlotClosed, 2) }, lost, "still open"},
		"a slot taken while one is open":   {func(h *told) { h.drop(events.TypeSlotClosed, 1) }, contradiction, "taken while slot 1 is open"},
		"a slot that is missing":           {func(h *told) { h.drop(events.TypeSlotTaken, 1) }, contradiction, "taken after slot 0"},
		"a slot closed and never live":     {func(h *told) { h.decision(2).Decision = events.Abandoned }, contradiction, "without having been live"},
		"a slot for another image":         {func(h *told) { h.claim(2).Digest = digestA }, contradiction, "run 2 has " + digestB},
		"a success that was rejected":      {func(h *told) { h.closing(2).Closing = events.Rejected }, contradiction, `its slot with "rejected"`},
		"another image than was asked for": {func(h *told) { h.asked[1].digest = digestA }, contradiction, "was asked for with"},
		"an order turned round":            {func(h *told) { h.records[3].seq = 99 }, contradiction, "comes after"},
		"a container that is gone":         {func(h *told) { h.containers = h.containers[1:] }, lost, "live and not there"},
		"a container that ended":           {func(h *told) { h.containers[0].state = "exited" }, lost, "live and exited"},
		"a container of the version before": {func(h *told) {
			h.containers = append(h.containers, container{name: h.replica(1), state: "running", app: "hello", env: "dev", slot: "1"})
		}, orphan, "belongs to nothing"},
		"a release of the version before": {func(h *told) {
			h.containers = append(h.containers, container{name: h.release(1), app: "hello", env: "dev", slot: "1"})
		}, orphan, "belongs to nothing"},
		"a container with another image":      {func(h *told) { h.containers[0].image = "r@" + digestA }, contradiction, "runs r@" + digestA},
		"fewer replicas than there are to be": {func(h *told) { h.asked[0].replicas = 2 }, lost, "has 1 replicas, not 2"},
	} {
		t.Run(name, func(t *testing.T) {
			h := twoRuns()
			c.damage(h)
			faults := check(h.history)
			if !slices.ContainsFunc(faults, func(f fault) bool { return f.kind == c.kind && strings.Contains(f.text, c.text) }) {
				t.Errorf("found %v, and not %s: … %s", faults, c.kind, c.text)
			}
		})
	}
}

func third(run int) *events.SlotTaken {
	return &events.SlotTaken{Slot: 3, Run: run, Attempt: 1, Digest: digestB, Kind: events.KindDeploy}
}

func published(digest string) *events.ArtifactPublished {
	b := &events.ArtifactPublished{}
	b.Published.Artifact.Digest = digest
	return b
}

func (h *told) decision(nth int) *events.SlotDecided {
	return h.records[h.find(events.TypeSlotDecided, nth)].event.Body.(*events.SlotDecided)
}

func (h *told) claim(nth int) *events.SlotTaken {
	return h.records[h.find(events.TypeSlotTaken, nth)].event.Body.(*events.SlotTaken)
}

func (h *told) closing(nth int) *events.SlotClosed {
	return h.records[h.find(events.TypeSlotClosed, nth)].event.Body.(*events.SlotClosed)
}

func TestOneSeedOneSchedule(t *testing.T) {
	schedule := func(seed uint64) string {
		var text []string
		for _, program := range []string{"promote", "vet"} {
			o := ordersFor(seed, program, false)
			for range 50 {
				text = append(text, o.life())
			}
		}
		b := &blows{source(seed, "blows"), []string{"bus", "vet", "promote"}, time.Second}
		for range 50 {
			text = append(text, fmt.Sprint(b.next()))
		}
		for _, a := range applications(seed, 12) {
			c := changesOf(seed, a)
			for range 10 {
				text = append(text, a.definition(c.next()))
			}
		}
		return strings.Join(text, "\n")
	}
	first, again := schedule(7), schedule(7)
	if first != again {
		t.Error("one seed gives two schedules")
	}
	if first == schedule(8) {
		t.Error("two seeds give one schedule")
	}
}

func TestHowLongWorkLay(t *testing.T) {
	at := func(seconds float64) time.Time {
		return time.Unix(1000, 0).Add(time.Duration(seconds * float64(time.Second)))
	}
	trail := []passed{
		{at(1), 10, false, "vet", "received", "a"}, {at(1), 10, false, "vet", "received", "b"}, {at(2), 10, false, "vet", "ack", "b"},
		{at(3), 10, true, "vet", "decided", "a"},
		{at(5), 11, false, "vet", "received", "b"}, {at(9), 12, false, "vet", "received", "a"}, {at(10), 12, false, "vet", "received", "b"},
	}
	deaths := []death{{program: "vet", pid: 10, at: at(3)}}
	got := resumptions(trail, deaths)
	if len(got) != 1 || got[0].what != "vet a" || got[0].after != 6*time.Second {
		t.Errorf("%+v, and a lay for 6 s, b for none", got)
	}
	if got = resumptions(trail, append(deaths, death{program: "bus", pid: 5, at: at(2), back: at(6)})); len(got) != 1 || got[0].after != 3*time.Second {
		t.Errorf("%+v, and the bus was back after 3 s", got)
	}
	deaths = append(deaths, death{program: "vet", pid: 11, at: at(8)})
	if got = resumptions(trail, deaths); len(got) != 2 || got[0].after != time.Second {
		t.Errorf("%+v, and the second death began the wait anew", got)
	}
}

func TestWhoWasToldOfWhat(t *testing.T) {
	m, _, err := openMailbox(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer m.close()
	post := func(kind, run string) {
		t.Helper()
		request, err := http.NewRequest(http.MethodPost, m.server.URL, nil)
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("Towpath-Kind", kind)
		request.Header.Set("Towpath-Run", run)
		response, err := m.server.Client().Do(request)
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
	}
	post("done", "a/1")
	post("done", "a/1")
	post("done", "a/2")
	all := []asked{{app: "a", run: 1, status: "done"}, {app: "a", run: 2, status: "failed"}, {app: "a", run: 3, status: "stuck"}}
	if got := m.untold(all); len(got) != 1 || got[0].text != "nobody was told: failed a/2" {
		t.Errorf("%v", got)
	}
}
