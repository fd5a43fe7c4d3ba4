// Package foldtest is a ledger in memory for tests of what is decided on a fold: write-once like the real
// one, without a bus, a door or signatures. What the bus does is tested against the real one, by package
// ledgertest.
package foldtest

import (
	"encoding/json"
	"fmt"
	"time"

	"towpath.dev/events"
	"towpath.dev/pkg/ledger"
	"towpath.dev/pkg/ledger/fold"
	"towpath.dev/pkg/pipeline"
)

// Epoch is the epoch of every event.
const Epoch = 1

// Start is the time of a ledger's first event; each later event is a second later.
var Start = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// Ledger is a write-once log of events. It is for one goroutine at a time.
type Ledger struct {
	records  []ledger.Record
	subjects map[events.Subject]int // index of the record
	passed   time.Duration          // besides the second that each event takes
	judged   map[string]string      // run → digest of the policy that it is judged by
}

// New returns an empty ledger.
func New() *Ledger {
	return &Ledger{subjects: map[events.Subject]int{}, judged: map[string]string{}}
}

// Append stores an event, or returns *ledger.ExistsError where its subject is taken.
func (l *Ledger) Append(s events.Subject, e events.Event) (ledger.Record, error) {
	if i, ok := l.subjects[s]; ok {
		return ledger.Record{}, &ledger.ExistsError{Winner: l.records[i]}
	}
	r := ledger.Record{Seq: uint64(len(l.records) + 1), Time: e.Time, Subject: s, Event: e}
	l.subjects[s] = len(l.records)
	l.records = append(l.records, r)
	switch b := e.Body.(type) {
	case *events.ChangeMerged:
		l.judged[fold.Name(b.Run.App, b.Run.Predecessor+1)] = b.Run.PolicyDigest
	case *events.ReplayRequested:
		if b.Policy != "" {
			l.judged[fold.Name(s.App, s.Run)] = b.Policy
		}
	}
	return r, nil
}

// Records returns what was stored after a sequence.
func (l *Ledger) Records(after uint64) []ledger.Record {
	return l.records[min(after, uint64(len(l.records))):]
}

// Has returns what is stored under a subject.
func (l *Ledger) Has(s events.Subject) (ledger.Record, bool) {
	if i, ok := l.subjects[s]; ok {
		return l.records[i], true
	}
	return ledger.Record{}, false
}

// Fold returns a new fold of everything.
func (l *Ledger) Fold() *fold.Fold {
	f := fold.New()
	for _, r := range l.records {
		if err := f.Apply(r); err != nil {
			panic(err)
		}
	}
	return f
}

// App returns an app as everything makes it.
func (l *Ledger) App(app events.Slug) *fold.App { return l.Fold().App(app) }

// Now is the time of the next event.
func (l *Ledger) Now() time.Time {
	return Start.Add(time.Duration(len(l.records))*time.Second + l.passed)
}

// Pass lets time go by.
func (l *Ledger) Pass(d time.Duration) { l.passed += d }

// Write stores an event of a subject's writer, and panics where the subject is taken. It returns the
// event's id.
func (l *Ledger) Write(s events.Subject, chainID string, b events.Body) string {
	if b.SubjectID() == "" {
		panic(fmt.Sprintf("%s has no subject id", b.Type()))
	}
	e := events.New(s.Writer, l.Now(), chainID, b)
	e.ID = fmt.Sprintf("event-%d", len(l.records)+1)
	if _, err := l.Append(s, e); err != nil {
		panic(err)
	}
	return e.ID
}

// Definition parses a towpath.yaml that must be right.
func Definition(text string) pipeline.Definition {
	d, err := pipeline.Parse(pipeline.FileName, []byte(text))
	if err != nil {
		panic(err)
	}
	return d
}

// Digest makes a digest out of a few letters.
func Digest(name string) string { return fmt.Sprintf("sha256:%064x", name) }

// ArtifactID is the purl that the story gives an image of an app.
func ArtifactID(app events.Slug, digest string) string {
	return "pkg:oci/" + string(app) + "@" + digest
}

// Policy publishes a platform policy and returns its digest.
func (l *Ledger) Policy(serial int, text string) string {
	b := &events.PolicyPublished{Digest: Digest(fmt.Sprint("policy", serial)), Text: json.RawMessage(text), Actor: "operator"}
	b.ID = b.Digest
	l.Write(events.PolicySubject(Epoch, serial), "", b)
	return b.Digest
}

// Push starts a run from source under a policy and returns its number.
func (l *Ledger) Push(d pipeline.Definition, policy string) int {
	n := 1
	if a := l.App(d.App); a != nil {
		n = a.Runs.Len() + 1
	}
	l.PushNumber(d, policy, n)
	return n
}

// PushNumber is Push for a caller that knows the number.
func (l *Ledger) PushNumber(d pipeline.Definition, policy string, n int) {
	sha := fmt.Sprintf("%040x", n)
	b := &events.ChangeMerged{Repository: events.Reference{ID: string(d.App)}, Run: events.RunStart{
		App: d.App, Ref: "refs/heads/main", SHA: sha, Predecessor: n - 1, PolicyDigest: policy,
		Definition: d.Canonical(), DefinitionDigest: d.Digest(), Actor: "ann", Authors: []string{"ann"},
	}}
	b.ID = sha
	l.Write(events.RunStartSubject(Epoch, b.Type(), d.App, "", "refs/heads/main", n-1, sha), Chain(d.App, n), b)
}

// Chain is the chain id that the story gives a run.
func Chain(app events.Slug, n int) string { return fmt.Sprintf("chain-%s-%d", app, n) }

// Built writes that an attempt at building a run made an image.
func (l *Ledger) Built(app events.Slug, run, attempt int, digest string) {
	l.BuiltIn(app, run, attempt, "registry/"+string(app), digest)
}

// BuiltIn is Built for an image in a repository that is really there.
func (l *Ledger) BuiltIn(app events.Slug, run, attempt int, repository, digest string) {
	b := &events.ArtifactPublished{Published: events.Published{Artifact: events.Artifact{Repository: repository, Digest: digest}}}
	b.ID = ArtifactID(app, digest)
	l.Write(events.BuildSubject(Epoch, b.Type(), app, run, "", attempt), Chain(app, run), b)
}

// Vetted writes the verdict of an attempt at vetting a run, by the policy that the run is judged by: pass,
// but fail in the environments named.
func (l *Ledger) Vetted(app events.Slug, run, attempt int, digest string, environments []events.Slug, fail ...events.Slug) {
	b := &events.VetRunFinished{ArtifactID: ArtifactID(app, digest), Policy: l.judged[fold.Name(app, run)], Outcome: events.Success}
	b.ID = fold.Name(app, run)
	b.Result.Attempt = attempt
	for _, e := range environments {
		v := events.EnvironmentVerdict{Environment: e, Verdict: events.Pass}
		for _, f := range fail {
			if f == e {
				v.Verdict, v.Reasons = events.Fail, []string{"licence AGPL-3.0 is denied"}
			}
		}
		b.Verdicts = append(b.Verdicts, v)
	}
	l.Write(events.VetSubject(Epoch, b.Type(), app, run, "", attempt), Chain(app, run), b)
}

// Ready pushes, builds and vets a run whose image is named after it, and returns its number.
func (l *Ledger) Ready(d pipeline.Definition, policy string) int {
	n := l.Push(d, policy)
	digest := Digest(fmt.Sprint("run", n))
	l.Built(d.App, n, 1, digest)
	l.Vetted(d.App, n, 1, digest, d.EnvironmentNames())
	return n
}

// Command writes a command and returns its id.
func (l *Ledger) Command(c events.Command) string {
	id := fmt.Sprintf("command-%d", len(l.records)+1)
	if c.Actor == "" {
		c.Actor = "bob"
	}
	b := &events.CommandReceived{Command: c}
	b.ID = id
	l.Write(events.CommandSubject(Epoch, b.Type(), c.App, c.Run, c.Environment, id), "", b)
	return id
}

// Replay asks for a new attempt at a stage and returns the command's id.
func (l *Ledger) Replay(app events.Slug, run int, stage string, env events.Slug) string {
	id := fmt.Sprintf("command-%d", len(l.records)+1)
	b := &events.ReplayRequested{Stage: stage, Environment: env, Actor: "bob", Reason: "mended"}
	b.ID = id
	l.Write(events.CommandSubject(Epoch, b.Type(), app, run, env, id), Chain(app, run), b)
	return id
}

// ReplayBy is Replay under the policy with that digest.
func (l *Ledger) ReplayBy(app events.Slug, run int, stage string, env events.Slug, policy string) string {
	id := fmt.Sprintf("command-%d", len(l.records)+1)
	b := &events.ReplayRequested{Stage: stage, Environment: env, Actor: "bob", Reason: "mended", Policy: policy}
	b.ID = id
	l.Write(events.CommandSubject(Epoch, b.Type(), app, run, env, id), Chain(app, run), b)
	return id
}

// Verified writes how an attempt at verifying a slot ended.
func (l *Ledger) Verified(app events.Slug, run int, env events.Slug, slot, attempt int, o events.Outcome) {
	b := &events.TestSuiteRunFinished{
		Environment: events.Reference{ID: string(env)}, Outcome: o,
		Trial: events.Trial{Slot: slot, Attempt: attempt},
	}
	b.ID = fmt.Sprintf("%s/%d/%s/%d", app, run, env, slot)
	if o != events.Success {
		b.Reason = "GET / answers 500"
		b.Trial.Trouble = &events.Trouble{What: "verifying", Why: b.Reason}
	}
	l.Write(events.VerifySubject(Epoch, b.Type(), app, run, env, slot, 0, attempt), Chain(app, run), b)
}
