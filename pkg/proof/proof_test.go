package proof

import (
	"bytes"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"towpath.dev/events"
	"towpath.dev/pkg/identity"
)

func TestAnHonestProofIsProven(t *testing.T) {
	w := newWorld(t)
	w.populate()
	for name, wish := range map[string]Wish{
		"run":         {About: About{App: "hello", Run: 2}},
		"environment": {About: About{App: "hello", Run: 2, Environment: "prod"}},
		"first run":   {About: About{App: "hello", Run: 1}},
		"unfinished":  {About: About{App: "hello", Run: 3}},
		"barely":      {About: About{App: "billing", Run: 3}},
	} {
		data := w.export(wish)
		v := Verify(data, w.terms())
		if !v.Proven() {
			t.Errorf("%s: %s", name, v.Headline())
			continue
		}
		if v.Size != w.head.Size || v.Events == 0 || v.Signatures < v.Events || len(v.Limits) == 0 {
			t.Errorf("%s: %+v", name, v)
		}
		if name == "environment" {
			text := strings.Join(v.Story, "\n")
			limits := strings.Join(v.Limits, "\n")
			for _, want := range []string{
				"(vetrun.finished of hello/2): unknown event type", "(policy.published): unknown event type", "what 2 events say",
				"that u-approver might approve",
			} {
				if !strings.Contains(limits, want) {
					t.Errorf("the limits lack %q:\n%s", want, limits)
				}
			}
			for _, want := range []string{commitOf(2), "u-author", string(w.image(2).Digest), "dev, qa, prod", "approved by u-approver", "prod runs"} {
				if !strings.Contains(text, want) {
					t.Errorf("the story lacks %q:\n%s", want, text)
				}
			}
		}
	}
}

// TestAProofIsFastAndSmall verifies one deploy among many events of others.
func TestAProofIsFastAndSmall(t *testing.T) {
	w := newWorld(t)
	w.populate()
	chain := w.startRun("hello", 4)
	for i := range 3000 {
		w.add(events.CommandSubject(1, events.TypeCommandReceived, "billing", 1, "dev", events.NewID()), "", &events.CommandReceived{
			About: events.About{ID: events.NewID()}, Command: events.Command{Verb: "hold", App: "billing", Run: 1, Reason: strings.Repeat("x", i%50)},
		})
	}
	w.build(4, chain)
	w.deploy(4, chain, "dev", 3, 1)
	w.seal()
	data := w.export(Wish{About: About{App: "hello", Run: 4}})
	began := time.Now()
	v := Verify(data, w.terms())
	took := time.Since(began)
	t.Logf("%d bytes, %d events shown of %d sealed, verified in %s", len(data), v.Events, v.Size, took)
	if !v.Proven() {
		t.Error(v.Headline())
	}
	if took > 2*time.Second {
		t.Errorf("it took %s", took)
	}
}

// TestALongRangeEndsEarlier: a run that is long over is proven as of the checkpoint after its last event.
func TestALongRangeEndsEarlier(t *testing.T) {
	w := newWorld(t)
	w.populate()
	for range 300 {
		w.add(events.CommandSubject(1, events.TypeCommandReceived, "billing", 1, "dev", events.NewID()), "", &events.CommandReceived{
			About: events.About{ID: "c"}, Command: events.Command{Verb: "hold", App: "billing", Run: 1},
		})
	}
	first := w.head
	w.seal()
	about := About{App: "hello", Run: 2, Environment: "prod"}
	short, whole := w.export(Wish{About: about, Limit: 100}), w.export(Wish{About: about, Whole: true})
	if len(short) > len(whole)-10_000 {
		t.Errorf("%d bytes, whole %d", len(short), len(whole))
	}
	for name, data := range map[string][]byte{"short": short, "whole": whole} {
		if v := Verify(data, w.terms()); !v.Proven() || v.Size != w.head.Size {
			t.Errorf("%s: %s, %d events", name, v.Headline(), v.Size)
		}
	}
	// A checkpoint that was kept from before the run is extended where that was asked for.
	terms := w.terms()
	terms.Checkpoint = first.Checkpoint
	if v := Verify(short, terms); !v.Proven() {
		t.Errorf("against the checkpoint at its end: %s", v.Headline())
	}
}

func TestAProofExtendsTheCheckpointThatWasKept(t *testing.T) {
	w := newWorld(t)
	w.populate()
	kept := w.head
	fourth := w.startRun("hello", 4)
	w.build(4, fourth)
	w.seal()
	terms := w.terms()
	terms.Checkpoint = kept.Checkpoint
	about := About{App: "hello", Run: 4}
	for name, wish := range map[string]Wish{"in the range or at its beginning": {About: about}, "asked for": {About: about, Extends: kept.Size}} {
		if v := Verify(w.export(wish), terms); !v.Proven() && name == "asked for" {
			t.Errorf("%s: %s", name, v.Headline())
		}
	}
	if v := Verify(w.export(Wish{About: About{App: "hello", Run: 2}}), terms); !v.Proven() {
		t.Errorf("a run before the checkpoint: %s", v.Headline())
	}
	// What ends before the checkpoint that was kept was rolled back.
	newer := w.head
	old := *w
	old.stored, old.head = w.stored[:kept.Size], kept
	terms.Checkpoint = newer.Checkpoint
	if v := Verify(old.export(Wish{About: About{App: "hello", Run: 2}}), terms); v.Forged == nil || !strings.Contains(v.Headline(), "rolled back") {
		t.Errorf("rolled back: %s", v.Headline())
	}
}

// TestAFlippedByteIsNamed: what was changed in an event is said of that event.
// Whatever byte of a proof is another, and wherever it is cut, it is still seen to be one, so that it is judged; other
// files are not.
func TestAProofIsSeenToBeOne(t *testing.T) {
	w := newWorld(t)
	w.populate()
	data := w.export(Wish{About: About{App: "hello", Run: 2}})
	for at := range data {
		if at > 256 && at < len(data)-256 {
			continue
		}
		other := bytes.Clone(data)
		other[at] ^= 1
		if !Resembles(other) {
			t.Errorf("with another byte at %d it is taken for no proof", at)
		}
	}
	for _, size := range []int{len(data), len(data) / 2, 256} {
		if !Resembles(data[:size]) {
			t.Errorf("its first %d bytes are taken for no proof", size)
		}
	}
	for _, text := range []string{"", "2026-01-02T03:04:05Z INFO the gateway answers\n", `{"context":{"specversion":"0.5.1"}}` + "\n", "towpath.dev/ledger\n42\nAbCd=\n\n— signed\n"} {
		if Resembles([]byte(text)) {
			t.Errorf("%q is taken for a proof", text)
		}
	}
}

func TestAFlippedByteIsNamed(t *testing.T) {
	w := newWorld(t)
	w.populate()
	b, err := decode(w.export(Wish{About: About{App: "hello", Run: 2}}))
	if err != nil {
		t.Fatal(err)
	}
	for i, l := range b.Leaves {
		if s, err := events.ParseSubject(l.Subject); err == nil && s.Subject == "vetrun" && l.full() {
			b.Leaves[i].Body[len(l.Body)/2] ^= 1
		}
	}
	data, err := b.encode()
	if err != nil {
		t.Fatal(err)
	}
	v := Verify(data, w.terms())
	if !strings.HasPrefix(v.Headline(), "FORGED: event ") || !strings.Contains(v.Headline(), "(vetrun.finished of hello/2)") {
		t.Error(v.Headline())
	}
	data[len(data)-2] ^= 1 // without the file's own hash too
	if v := Verify(data, w.terms()); !strings.Contains(v.Headline(), "(vetrun.finished of hello/2)") {
		t.Error(v.Headline())
	}
}

// TestApprovalsAsTheGateCountsThem: one under another policy, for another verdict, after a denial does not count, and a
// proof says so.
func TestApprovalsAsTheGateCountsThem(t *testing.T) {
	replay := func(w *world, n int, chain string, env events.Slug, digest string) {
		b := &events.ReplayRequested{Stage: "promote", Environment: env, Actor: "u-ops", Reason: "again", Policy: digest}
		b.ID = "replay-" + digest
		w.add(events.CommandSubject(1, b.Type(), "hello", n, env, b.ID), chain, b)
	}
	attempt := 1 // that takes the slot
	for name, c := range map[string]struct {
		between func(w *world, chain string) // after u-approver's approval, before the slot
		proven  bool
		says    string
	}{
		"as it was": {func(*world, string) {}, true, "approved by u-approver"},
		"another policy": {func(w *world, chain string) {
			w.otherPolicy(2)
			replay(w, 2, chain, "prod", w.policy.Digest())
		}, false, "not counted: that of u-approver (event"},
		"another policy, and approved again": {func(w *world, chain string) {
			w.otherPolicy(2)
			replay(w, 2, chain, "prod", w.policy.Digest())
			w.approve(2, chain, "prod", "u-second")
		}, true, "approved by u-second; not counted: that of u-approver"},
		"another verdict": {func(w *world, chain string) {
			w.vetted(2, chain, 2, events.Pass)
		}, false, "was given before the verdict changed"},
		"the same verdict": {func(w *world, chain string) {
			w.vetted(2, chain, 2, events.Warn)
		}, true, "approved by u-approver"},
		"denied": {func(w *world, chain string) {
			b := &events.PromotionDenied{Promotion: events.Promotion{ArtifactID: w.image(2).PURL(), Environment: "prod", Policy: w.policy.Digest(), Responder: "u-approver"}}
			b.ID = "hello/2/prod"
			w.add(events.PromoteSubject(1, b.Type(), "hello", 2, "prod", "no", 1), chain, b)
		}, false, "it was denied before"},
		"denied, and replayed by an operator": {func(w *world, chain string) {
			w.deny(2, chain, "prod", "u-denier", 1)
			replay(w, 2, chain, "prod", "")
			attempt = 2
		}, false, "u-denier denied it before (event 21): not on a Friday, and neither took that back nor was overruled"},
		"denied, and taken back": {func(w *world, chain string) {
			w.deny(2, chain, "prod", "u-denier", 1)
			w.approve(2, chain, "prod", "u-denier")
			attempt = 2
		}, true, "approved by u-approver, u-denier"},
		"denied, and overruled by another": {func(w *world, chain string) {
			w.deny(2, chain, "prod", "u-denier", 1)
			w.approve(2, chain, "prod", "u-second", "c-u-denier-2-prod-deny")
			attempt = 2
		}, true, "approved by u-approver, u-second"},
		"another denial overruled": {func(w *world, chain string) {
			w.deny(2, chain, "prod", "u-denier", 1)
			w.approve(2, chain, "prod", "u-second", "c-u-else-2-prod-deny")
			attempt = 2
		}, false, "u-denier denied it before"},
		"denied, and approved by another": {func(w *world, chain string) {
			w.deny(2, chain, "prod", "u-denier", 1)
			w.approve(2, chain, "prod", "u-second")
			attempt = 2
		}, false, "u-denier denied it before"},
		"denied when the gate had been passed": {func(w *world, chain string) {
			w.command(2, "prod", "u-denier", events.VerbDeny)
		}, true, "denied by u-denier (event 20): not on a Friday"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.publishPolicy(1)
			for i, env := range []events.Slug{"dev", "qa", "prod"} {
				w.set(env, uint64(i+1))
			}
			w.startRun("hello", 1)
			chain := w.startRun("hello", 2)
			w.build(2, chain)
			w.deploy(2, chain, "dev", 1, 1)
			w.deploy(2, chain, "qa", 1, 2)
			w.approve(2, chain, "prod", "u-approver")
			attempt = 1
			c.between(w, chain)
			w.deployAttempt(2, chain, "prod", 1, 3, attempt)
			w.seal()
			v := Verify(w.export(Wish{About: About{App: "hello", Run: 2}}), w.terms())
			if v.Forged != nil || v.Proven() != c.proven {
				t.Errorf("%s", v.Headline())
			}
			if text := v.Headline() + "\n" + strings.Join(v.Story, "\n"); !strings.Contains(text, c.says) {
				t.Errorf("no %q in\n%s", c.says, text)
			}
		})
	}
}

// TestARetiredKeyIsALimit: whoever has the ledger's old key can date back, and only a witness tells.
func TestARetiredKeyIsALimit(t *testing.T) {
	w := newWorld(t)
	w.populate()
	data := w.export(Wish{About: About{App: "hello", Run: 2}})
	if _, err := identity.Prepare(w.keys, identity.Change{Identities: []string{"ledger"}, Now: w.at.Add(time.Hour)}); err != nil {
		t.Fatal(err)
	}
	trust, err := identity.LoadTrust(filepath.Join(w.keys, identity.TrustFile))
	if err != nil {
		t.Fatal(err)
	}
	const limit = "that nobody made this up later"
	if v := Verify(data, Terms{Trust: trust}); !v.Proven() || !strings.Contains(strings.Join(v.Limits, "\n"), limit) {
		t.Errorf("without a witness: %s\n%s", v.Headline(), strings.Join(v.Limits, "\n"))
	}
	if v := Verify(data, Terms{Trust: trust, Witnesses: w.terms().Witnesses}); !v.Proven() || strings.Contains(strings.Join(v.Limits, "\n"), limit) {
		t.Errorf("with a witness: %s\n%s", v.Headline(), strings.Join(v.Limits, "\n"))
	}
}
