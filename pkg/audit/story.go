package audit

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"time"

	"towpath.dev/events"
)

// Person is an actor. The ledger holds the id alone; the rest is filled in by Name.
type Person struct {
	ID     string `json:"id"`
	Name   string `json:"name,omitempty"`
	Kind   string `json:"kind,omitempty"` // person, bot or service
	Erased bool   `json:"erased,omitempty"`
}

func person(id string) *Person {
	if id == "" {
		return nil
	}
	return &Person{ID: id}
}

func people(ids []string) []*Person {
	list := []*Person{}
	for _, id := range ids {
		list = append(list, person(id))
	}
	return list
}

// Story is how one run came about and where it went.
type Story struct {
	App          string        `json:"app"`
	Run          string        `json:"run"`
	Chain        string        `json:"chainId"`
	Digest       string        `json:"digest,omitempty"` // of the image that it carried last; empty: none yet
	Change       Change        `json:"change"`
	Builds       []Build       `json:"builds"`
	Vetting      []Vetting     `json:"vetting"`
	Environments []Environment `json:"environments"`
	Acts         []Act         `json:"acts"` // what people and bots asked for, and were refused
	Stuck        []Stuck       `json:"stuck,omitempty"`
	Last         uint64        `json:"lastEvent"` // the newest event that this is told from
}

// Change is what the run was started with.
type Change struct {
	Mark
	Image            bool      `json:"image,omitempty"` // built elsewhere: it entered at vet
	Repository       string    `json:"repository,omitempty"`
	Ref              string    `json:"ref,omitempty"`
	Old              string    `json:"old,omitempty"` // commit that the branch was at before
	Commit           string    `json:"commit,omitempty"`
	Pusher           *Person   `json:"pusher"`
	Authors          []*Person `json:"authors"` // of the pushed commits
	DefinitionDigest string    `json:"definitionDigest"`
	PolicyDigest     string    `json:"policyDigest"`
}

// Build is one attempt at the image.
type Build struct {
	Attempt    int        `json:"attempt"`
	Builder    string     `json:"builder,omitempty"` // whose key signed
	Started    *Mark      `json:"started,omitempty"`
	Finished   *Mark      `json:"finished,omitempty"`
	Outcome    string     `json:"outcome,omitempty"`
	Trouble    string     `json:"trouble,omitempty"`
	Repository string     `json:"repository,omitempty"`
	Digest     string     `json:"digest,omitempty"`
	Tree       string     `json:"tree,omitempty"` // of everything that was read
	ReusedFrom string     `json:"reusedFrom,omitempty"`
	Provenance string     `json:"provenance,omitempty"` // digest of the referrer
	Signed     []Evidence `json:"signed,omitempty"`
}

// Evidence is a signed statement about the image, in the registry.
type Evidence struct {
	Mark
	Statement string `json:"statement"`
	Referrer  string `json:"referrer"`
	Key       string `json:"key"`
}

// Vetting is one attempt at a verdict.
type Vetting struct {
	Attempt  int              `json:"attempt"`
	Started  *Mark            `json:"started,omitempty"`
	Finished *Mark            `json:"finished,omitempty"`
	Artifact string           `json:"artifact,omitempty"`
	Policy   string           `json:"policy,omitempty"`
	Outcome  string           `json:"outcome,omitempty"`
	Trouble  string           `json:"trouble,omitempty"`
	Verdicts []Verdict        `json:"verdicts,omitempty"`
	Findings []events.Finding `json:"findings,omitempty"` // the gravest; Report has all
	Total    int              `json:"total"`
	Report   string           `json:"report,omitempty"`
	SBOM     string           `json:"sbom,omitempty"`
	Signed   []Evidence       `json:"signed,omitempty"`
}

// Verdict is what vetting said for an environment.
type Verdict struct {
	Environment string   `json:"environment"`
	Verdict     string   `json:"verdict"`
	Reasons     []string `json:"reasons,omitempty"`
}

// Environment is what happened to the run in one environment.
type Environment struct {
	Name      string     `json:"name"`
	Asked     *Asked     `json:"asked,omitempty"` // for approvals
	Approvals []Approval `json:"approvals"`
	Denied    *Approval  `json:"denied,omitempty"`
	Deploys   []Deploy   `json:"deploys"`
}

// Asked is a request for approvals.
type Asked struct {
	Mark
	Wanted int `json:"wanted"`
}

// Approval is one that counted, or a denial, and what it bound.
type Approval struct {
	Mark
	By       *Person `json:"by"`
	Artifact string  `json:"artifact"`
	Policy   string  `json:"policy"`
	Reason   string  `json:"reason,omitempty"`
}

// Deploy is one slot of an environment that held the run's version.
type Deploy struct {
	Slot       int        `json:"slot"`
	Kind       string     `json:"kind"` // deploy, rollback, restore, remove
	From       int        `json:"from,omitempty"`
	Attempt    int        `json:"attempt,omitempty"`
	Digest     string     `json:"digest,omitempty"`
	Before     string     `json:"before,omitempty"` // digest that served until then
	BeforeRun  string     `json:"beforeRun,omitempty"`
	By         *Person    `json:"by,omitempty"` // who asked for exactly this
	Reason     string     `json:"reason,omitempty"`
	Taken      Mark       `json:"taken"`
	Decided    *Mark      `json:"decided,omitempty"`
	Decision   string     `json:"decision,omitempty"` // live or abandoned
	Why        string     `json:"why,omitempty"`
	Containers []Instance `json:"containers,omitempty"`
	Config     []Pin      `json:"config,omitempty"`
	Secrets    []Pin      `json:"secrets,omitempty"`
	Checks     []Check    `json:"checks,omitempty"`
	Verified   *Verified  `json:"verified,omitempty"`
	Closed     *Mark      `json:"closed,omitempty"`
	Closing    string     `json:"closing,omitempty"` // verified, rejected, superseded
}

// Instance is a container that got requests.
type Instance struct {
	Name    string `json:"name"`
	Address string `json:"address,omitempty"`
	Engine  string `json:"engine,omitempty"`
}

// Pin is the version of one setting that a deploy used.
type Pin struct {
	Key     string  `json:"key"`
	Version uint64  `json:"version"`
	By      *Person `json:"by,omitempty"` // who set it
	Set     *Mark   `json:"set,omitempty"`
}

// Check is one check of a verification.
type Check struct {
	Mark
	Attempt int    `json:"attempt"`
	Name    string `json:"name"`
	Outcome string `json:"outcome"`
	Reason  string `json:"reason,omitempty"`
}

// Verified is how a verification ended.
type Verified struct {
	Mark
	Attempt int    `json:"attempt"`
	Outcome string `json:"outcome"`
	Reason  string `json:"reason,omitempty"`
}

// Act is something that somebody asked for.
type Act struct {
	Mark
	Verb        string   `json:"verb"`
	By          *Person  `json:"by"`
	Roles       []string `json:"roles,omitempty"` // that they had then; none: it was before roles were recorded
	Stage       string   `json:"stage,omitempty"`
	Environment string   `json:"environment,omitempty"`
	Channel     string   `json:"channel,omitempty"`
	Relay       *Person  `json:"relay,omitempty"`  // the bot that passed it on
	Policy      string   `json:"policy,omitempty"` // digest of the one that the run is judged by from then on; empty: as before
	Reason      string   `json:"reason,omitempty"`
	Refused     string   `json:"refused,omitempty"` // why; empty: it was done
}

// Stuck is a stage that waited for an operator.
type Stuck struct {
	Mark
	Stage       string `json:"stage"`
	Environment string `json:"environment,omitempty"`
	Attempt     int    `json:"attempt"`
	Why         string `json:"why,omitempty"`
}

// Story tells of run n, in all environments or, where env is given, in that one; false: there is no such run.
func (t *Trail) Story(n int, env events.Slug) (Story, bool) {
	one := t.run(n)
	if one == nil {
		return Story{}, false
	}
	s := Story{
		App: string(t.App), Run: t.name(n), Chain: one.chain, Change: change(one),
		Builds: []Build{}, Vetting: []Vetting{}, Environments: []Environment{}, Acts: []Act{},
	}
	w := &writer{story: &s, trail: t, envs: map[events.Slug]*Environment{}, builds: map[int]*Build{}, vetting: map[int]*Vetting{}}
	for _, f := range one.facts {
		w.take(f)
	}
	w.deploys(n)
	for _, f := range t.general {
		if w.concerns(f, n) {
			w.act(f)
		}
	}
	w.close(env)
	return s, true
}

func change(one *run) Change {
	return Change{
		Mark: one.facts[0].mark(), Image: one.image, Repository: one.start.RepositoryURL, Ref: one.start.Ref, Old: commit(one.start.OldSHA),
		Commit: one.start.SHA, Pusher: person(one.start.Actor), Authors: people(one.start.Authors),
		DefinitionDigest: one.start.DefinitionDigest, PolicyDigest: one.start.PolicyDigest,
	}
}

// commit is a commit's id, empty for git's row of zeros.
func commit(id string) string {
	if strings.Trim(id, "0") == "" {
		return ""
	}
	return id
}

// writer puts a story together.
type writer struct {
	story   *Story
	trail   *Trail
	envs    map[events.Slug]*Environment
	order   []events.Slug
	builds  map[int]*Build
	vetting map[int]*Vetting
	first   time.Time
	last    time.Time
}

func (w *writer) env(name events.Slug) *Environment {
	e := w.envs[name]
	if e == nil {
		e = &Environment{Name: string(name), Approvals: []Approval{}, Deploys: []Deploy{}}
		w.envs[name] = e
		w.order = append(w.order, name)
	}
	return e
}

func entry[T any](of map[int]*T, attempt int) *T {
	if of[attempt] == nil {
		of[attempt] = new(T)
	}
	return of[attempt]
}

func (w *writer) saw(at time.Time) {
	if w.first.IsZero() {
		w.first = at
	}
	w.last = at
}

// take puts one event of the run where it belongs.
func (w *writer) take(f fact) {
	w.saw(f.at)
	w.story.Last = max(w.story.Last, f.seq)
	at := f.mark()
	switch b := f.body.(type) {
	case *events.BuildStarted:
		entry(w.builds, f.attempt).Started = &at
	case *events.ArtifactPublished:
		w.published(f, b)
	case *events.TaskRunFinished:
		if b.TaskName == "build" {
			one := entry(w.builds, f.attempt)
			one.Finished, one.Outcome, one.Trouble = &at, string(b.Outcome), trouble(b.Result.Trouble, b.Errors)
		}
	case *events.ArtifactSigned:
		w.signed(f, b)
	case *events.VetRunStarted:
		one := entry(w.vetting, f.attempt)
		one.Started, one.Artifact, one.Policy = &at, b.ArtifactID, b.Policy
	case *events.VetRunFinished:
		w.vetted(f, b)
	case *events.PromotionRequested:
		w.env(f.env).Asked = &Asked{at, b.Wanted}
	case *events.PromotionApproved:
		e := w.env(f.env)
		e.Approvals = append(e.Approvals, approval(at, b.Promotion))
	case *events.PromotionDenied:
		denied := approval(at, b.Promotion)
		w.env(f.env).Denied = &denied
	case *events.CommandReceived, *events.CommandRefused, *events.ReplayRequested:
		w.act(f)
	case *events.StageStuck:
		w.story.Stuck = append(w.story.Stuck, Stuck{at, b.Stage, string(b.Environment), b.Attempt, b.LastError})
	}
}

func (w *writer) published(f fact, b *events.ArtifactPublished) {
	at, a := f.mark(), b.Published.Artifact
	w.story.Digest = a.Digest
	one := entry(w.builds, f.attempt)
	one.Finished, one.Outcome = &at, string(events.Success)
	one.Repository, one.Digest, one.Tree, one.Provenance = a.Repository, a.Digest, a.Tree, a.Provenance
	if a.ReusedFrom > 0 {
		one.ReusedFrom = w.trail.name(a.ReusedFrom)
	}
}

func (w *writer) signed(f fact, b *events.ArtifactSigned) {
	e := Evidence{f.mark(), b.Signed.Statement, b.Signed.Referrer, b.Signed.KeyID}
	if f.writer == events.Build {
		one := entry(w.builds, f.attempt)
		one.Signed, one.Builder = append(one.Signed, e), b.Signed.KeyID
		return
	}
	one := entry(w.vetting, f.attempt)
	one.Signed = append(one.Signed, e)
}

func (w *writer) vetted(f fact, b *events.VetRunFinished) {
	at := f.mark()
	one := entry(w.vetting, f.attempt)
	one.Finished, one.Artifact, one.Policy, one.Outcome = &at, b.ArtifactID, b.Policy, string(b.Outcome)
	one.Trouble, one.Findings, one.Total = trouble(b.Result.Trouble, ""), b.Findings, b.Total
	for _, v := range b.Verdicts {
		one.Verdicts = append(one.Verdicts, Verdict{string(v.Environment), string(v.Verdict), v.Reasons})
		w.env(v.Environment)
	}
	if b.Report != nil {
		one.Report = b.Report.Digest
	}
	if b.SBOM != nil {
		one.SBOM = b.SBOM.Digest
	}
}

func approval(at Mark, p events.Promotion) Approval {
	return Approval{at, person(p.Responder), p.ArtifactID, p.Policy, p.Reason}
}

func trouble(t *events.Trouble, text string) string {
	if t != nil {
		return t.String()
	}
	return text
}

func (w *writer) act(f fact) {
	if a, ok := actOf(f); ok {
		w.story.Acts = append(w.story.Acts, a)
	}
}

// actOf reads what somebody asked for.
func actOf(f fact) (Act, bool) {
	command := func(c events.Command, why string) Act {
		env := c.Environment
		if env == "" {
			env = f.env
		}
		return Act{
			Mark: f.mark(), Verb: c.Verb, By: person(c.Actor), Roles: c.Roles, Stage: c.Stage, Environment: string(env), Channel: c.Channel,
			Relay: person(c.Relay), Reason: c.Reason, Refused: why,
		}
	}
	switch b := f.body.(type) {
	case *events.CommandReceived:
		return command(b.Command, ""), true
	case *events.CommandRefused:
		return command(b.Command, b.Why), true
	case *events.ReplayRequested:
		return Act{
			Mark: f.mark(), Verb: events.VerbReplay, By: person(b.Actor), Roles: b.Roles, Stage: b.Stage, Environment: string(b.Environment), Channel: b.Channel,
			Relay: person(b.Relay), Policy: b.Policy, Reason: b.Reason,
		}, true
	}
	return Act{}, false
}

// deploys adds the slots that held the run's version.
func (w *writer) deploys(n int) {
	for _, name := range slices.Sorted(maps.Keys(w.trail.envs)) {
		for _, s := range w.trail.envs[name].slots {
			if s.taken.Run != n {
				continue
			}
			e := w.env(name)
			e.Deploys = append(e.Deploys, w.trail.deploy(name, s))
			w.saw(s.at.At)
			w.story.Last = max(w.story.Last, s.at.Event, s.when.Event, s.ended.Event)
			if s.ended.At.After(w.last) {
				w.last = s.ended.At
			}
		}
	}
}

// concerns reports whether a command of the app, or about every app, has to do with run n: it held everything up while
// the run was on its way, or asked for one of its slots.
func (w *writer) concerns(f fact, n int) bool {
	var c events.Command
	switch b := f.body.(type) {
	case *events.CommandReceived:
		for _, e := range w.trail.envs {
			for _, s := range e.slots {
				if s.taken.Run == n && s.taken.Command == b.ID {
					return true
				}
			}
		}
		c = b.Command
	case *events.CommandRefused:
		c = b.Command
	}
	held := c.Verb == events.VerbHold || c.Verb == events.VerbResume
	return c.Run == n || held && !f.at.Before(w.first) && !f.at.After(w.last)
}

func (t *Trail) deploy(env events.Slug, s *slot) Deploy {
	d := Deploy{
		Slot: s.taken.Slot, Kind: string(s.taken.Kind), From: s.taken.From, Attempt: s.taken.Attempt, Digest: s.taken.Digest, Taken: s.at,
		Config: t.pins(env, s.taken.Pins.ConfigStore, s.taken.Pins.Config, false), Secrets: t.pins(env, s.taken.Pins.SecretStore, s.taken.Pins.Secrets, true),
	}
	if before := t.live(env, s.taken.Slot); before != nil && before.taken.Kind != events.KindRemove {
		d.Before, d.BeforeRun = before.taken.Digest, t.name(before.taken.Run)
	}
	if asked, ok := t.asked(s); ok {
		d.By, d.Reason = asked.By, asked.Reason
	}
	if s.decided != nil {
		when := s.when
		d.Decided, d.Decision, d.Why = &when, string(s.decided.Decision), s.decided.Why
		for _, i := range s.decided.Instances {
			d.Containers = append(d.Containers, Instance{i.ID, i.Address, i.Engine})
		}
	}
	if s.closed != nil {
		ended := s.ended
		d.Closed, d.Closing = &ended, string(s.closed.Closing)
		if s.closed.Why != "" {
			d.Why = s.closed.Why
		}
	}
	d.Checks, d.Verified = verification(s)
	return d
}

// asked finds who asked for a slot by name: a rollback, or a promotion of exactly this run.
func (t *Trail) asked(s *slot) (Act, bool) {
	if s.taken.Command == "" {
		return Act{}, false
	}
	facts := t.general
	if one := t.run(s.taken.Run); one != nil {
		facts = append(slices.Clone(facts), one.facts...)
	}
	for _, f := range facts {
		if b, ok := f.body.(*events.CommandReceived); ok && b.ID == s.taken.Command {
			return actOf(f)
		}
	}
	return Act{}, false
}

func (t *Trail) pins(env events.Slug, store string, versions map[string]uint64, secret bool) []Pin {
	var list []Pin
	for _, key := range slices.Sorted(maps.Keys(versions)) {
		p := Pin{Key: key, Version: versions[key]}
		f, ok := t.set[setting{env, key, store, versions[key], secret}]
		if !ok { // an older event does not name the store
			f, ok = t.set[setting{env, key, "", versions[key], secret}]
		}
		if ok {
			at := f.mark()
			p.Set = &at
			switch b := f.body.(type) {
			case *events.SettingChanged:
				p.By = person(b.Actor)
			case *events.SecretChanged:
				p.By = person(b.Actor)
			}
		}
		list = append(list, p)
	}
	return list
}

// skipped is the outcome of a check that an operator skipped.
const skipped = "skipped"

// verification reads a slot's checks, and how the last verification ended.
func verification(s *slot) (checks []Check, end *Verified) {
	for _, f := range s.tests {
		switch b := f.body.(type) {
		case *events.TestCaseRunFinished:
			c := Check{Mark: f.mark(), Attempt: f.attempt, Outcome: string(b.Outcome), Reason: b.Reason, Name: b.ID}
			if b.TestCase != nil {
				c.Name = cmp.Or(b.TestCase.Name, b.TestCase.ID)
			}
			checks = append(checks, c)
		case *events.TestCaseRunSkipped:
			c := Check{Mark: f.mark(), Attempt: f.attempt, Outcome: skipped, Reason: b.Reason, Name: b.ID}
			if b.TestCase != nil {
				c.Name = cmp.Or(b.TestCase.Name, b.TestCase.ID)
			}
			checks = append(checks, c)
		case *events.TestSuiteRunFinished:
			end = &Verified{f.mark(), f.attempt, string(b.Outcome), b.Reason}
		}
	}
	return checks, end
}

// close puts attempts and environments in order, and leaves out what was not asked for.
func (w *writer) close(env events.Slug) {
	s := w.story
	for _, n := range slices.Sorted(maps.Keys(w.builds)) {
		w.builds[n].Attempt = max(1, n)
		if !s.Change.Image {
			s.Builds = append(s.Builds, *w.builds[n])
		}
	}
	for _, n := range slices.Sorted(maps.Keys(w.vetting)) {
		w.vetting[n].Attempt = max(1, n)
		s.Vetting = append(s.Vetting, *w.vetting[n])
	}
	for _, name := range w.order {
		if env == "" || name == env {
			s.Environments = append(s.Environments, *w.envs[name])
		}
	}
	if env != "" {
		s.Acts = slices.DeleteFunc(s.Acts, func(a Act) bool { return a.Environment != "" && a.Environment != string(env) })
		s.Stuck = slices.DeleteFunc(s.Stuck, func(k Stuck) bool { return k.Environment != "" && k.Environment != string(env) })
	}
	slices.SortStableFunc(s.Acts, func(a, b Act) int { return cmp.Compare(a.Event, b.Event) })
}

// People calls each with every person in the story, so that a name can be put in.
func (s *Story) People(each func(*Person)) {
	visit := func(list ...*Person) {
		for _, p := range list {
			if p != nil {
				each(p)
			}
		}
	}
	visit(s.Change.Pusher)
	visit(s.Change.Authors...)
	for _, e := range s.Environments {
		for _, a := range e.Approvals {
			visit(a.By)
		}
		if e.Denied != nil {
			visit(e.Denied.By)
		}
		for _, d := range e.Deploys {
			visit(d.By)
			for _, p := range append(slices.Clone(d.Config), d.Secrets...) {
				visit(p.By)
			}
		}
	}
	for _, a := range s.Acts {
		visit(a.By, a.Relay)
	}
}
