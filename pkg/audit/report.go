package audit

import (
	"cmp"
	"encoding/csv"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"towpath.dev/events"
)

// Report is every change of one environment in a period.
type Report struct {
	Environment string       `json:"environment"`
	From        time.Time    `json:"from"` // inclusive
	To          time.Time    `json:"to"`   // exclusive
	Changes     []Alteration `json:"changes"`
	Restores    []Restore    `json:"restores"` // of the whole ledger, which they set back
	Alarms      []EndedAlarm `json:"alarms"`   // about the whole ledger
}

// Restore is a time when the ledger was brought back from a backup.
type Restore struct {
	Mark
	Backup string    `json:"backup"`
	Taken  time.Time `json:"taken"`
	Events uint64    `json:"events"`         // that the backup held
	Lost   uint64    `json:"lost,omitempty"` // events that were known to have come after it
	// Against is what the backup was held against; empty: nothing, or an older Towpath did not say.
	Against string  `json:"against,omitempty"`
	Forced  bool    `json:"forced,omitempty"`
	Reason  string  `json:"reason,omitempty"`
	By      *Person `json:"by"`
}

// String is the restore in a few words.
func (b Restore) String() string {
	text := fmt.Sprintf("ledger restored from backup %s of %s, %d events", b.Backup, b.Taken.UTC().Format(time.RFC3339), b.Events)
	switch {
	case b.Lost > 0:
		text += fmt.Sprintf("; %d later ones lost, by force", b.Lost)
	case b.Forced:
		text += "; by force, held against no checkpoint"
	}
	if b.Against != "" {
		text += "; held against: " + b.Against
	}
	return text + ", by " + b.By.String()
}

// Restores tells when the ledger was brought back, from a moment on and before another.
func (t *Trail) Restores(from, to time.Time) []Restore {
	list := []Restore{}
	for _, f := range t.general {
		if b, ok := f.body.(*events.LedgerRestored); ok && !f.at.Before(from) && f.at.Before(to) {
			list = append(list, Restore{f.mark(), b.Backup, b.Taken, b.Events, b.Lost, b.Against, b.Forced, b.Reason, person(b.Actor)})
		}
	}
	return list
}

// EndedAlarm is a time when the ledger was not what was sealed, and somebody had sealing begin anew.
type EndedAlarm struct {
	Mark
	Alarm  string  `json:"alarm"`
	Sealed uint64  `json:"sealed,omitempty"` // events under the newest checkpoint of before
	Reason string  `json:"reason"`
	By     *Person `json:"by"`
}

// String is the alarm in a few words.
func (a EndedAlarm) String() string {
	return fmt.Sprintf("the ledger was not what was sealed (%s); sealing began anew, by %s", a.Alarm, a.By)
}

// Alarms tells which alarms were ended, from a moment on and before another.
func (t *Trail) Alarms(from, to time.Time) []EndedAlarm {
	list := []EndedAlarm{}
	for _, f := range t.general {
		if b, ok := f.body.(*events.AlarmEnded); ok && !f.at.Before(from) && f.at.Before(to) {
			list = append(list, EndedAlarm{f.mark(), b.Alarm, b.Sealed, b.Reason, person(b.Actor)})
		}
	}
	return list
}

// Where the authors of an alteration come from.
const (
	FromEvents = "events" // the pushes that the ledger recorded cover the range without a gap
	FromGit    = "git"    // the gateway's repository was asked about the range
	FromNobody = "none"   // an image that was built elsewhere, without a commit
	Partly     = "events, incomplete"
)

// Alteration is one change of what serves in an environment: a slot that was decided live.
type Alteration struct {
	Mark
	App       string    `json:"app"`
	Slot      int       `json:"slot"`
	Kind      string    `json:"kind"` // deploy, rollback (by itself), restore (by an operator), remove
	Run       string    `json:"run"`
	Before    string    `json:"before,omitempty"` // digest
	After     string    `json:"after,omitempty"`  // digest; empty: nothing serves
	BeforeRun string    `json:"beforeRun,omitempty"`
	Commits   Range     `json:"commits"`
	Pusher    *Person   `json:"pusher"`
	Authors   []*Person `json:"authors"` // the pusher, and of every commit since what served before
	Source    string    `json:"authorsFrom"`
	Approvers []*Person `json:"approvers"`
	Denials   []Denial  `json:"denials"` // of this image there, before the change
	Tests     Tests     `json:"tests"`
	Policy    string    `json:"policy,omitempty"` // digest
	Verdict   string    `json:"verdict,omitempty"`
	Overrides []Act     `json:"overrides"`
	Closing   string    `json:"closing,omitempty"` // verified, rejected, superseded; empty: still open
	Why       string    `json:"why,omitempty"`
}

// Denial is that somebody denied what a change then brought.
type Denial struct {
	Mark
	By        *Person `json:"by"`
	Reason    string  `json:"reason,omitempty"`
	TakenBack bool    `json:"takenBack,omitempty"` // whoever denied approved it since
	Overruled *Person `json:"overruled,omitempty"` // who approved it over this, because whoever denied may not approve there any more
	id        string
}

// String is the denial in a few words: "by Ann (u-…): not on a Friday (taken back)".
func (d Denial) String() string {
	text := "by " + d.By.String()
	if d.Reason != "" {
		text += ": " + d.Reason
	}
	if d.TakenBack {
		text += " (taken back)"
	}
	if d.Overruled != nil {
		text += " (overruled by " + d.Overruled.String() + ")"
	}
	return text
}

// Range is the commits that a change brought, or took back.
type Range struct {
	Repository string `json:"repository,omitempty"` // URL; empty: hosted by the gateway
	From       string `json:"from,omitempty"`       // commit that served before; empty: none did
	To         string `json:"to,omitempty"`
	Back       bool   `json:"back,omitempty"` // an earlier version came back: the range was taken away
}

// String is the range as git writes it.
func (r Range) String() string {
	if r.From == "" {
		return r.To
	}
	return r.From + ".." + r.To
}

// Tests counts the checks of a verification by how they ended.
type Tests struct {
	Passed  int    `json:"passed"`
	Failed  int    `json:"failed"`
	Skipped int    `json:"skipped"`
	Outcome string `json:"outcome,omitempty"` // of all of them; empty: it has not ended
}

// Alterations tells what changed in an environment from a moment on and before another, in order.
func (t *Trail) Alterations(env events.Slug, from, to time.Time) []Alteration {
	var list []Alteration
	e := t.envs[env]
	if e == nil {
		return nil
	}
	for _, s := range e.slots {
		if s.decided == nil || s.decided.Decision != events.Live || s.when.At.Before(from) || !s.when.At.Before(to) {
			continue
		}
		list = append(list, t.alteration(env, s))
	}
	return list
}

func (t *Trail) alteration(env events.Slug, s *slot) Alteration {
	a := Alteration{
		Mark: s.when, App: string(t.App), Slot: s.taken.Slot, Kind: string(s.taken.Kind), Run: t.name(s.taken.Run), After: s.taken.Digest,
		Authors: []*Person{}, Approvers: []*Person{}, Denials: []Denial{}, Overrides: []Act{},
	}
	before := t.live(env, s.taken.Slot)
	if before != nil && before.taken.Kind == events.KindRemove {
		before = nil
	}
	if before != nil {
		a.Before, a.BeforeRun = before.taken.Digest, t.name(before.taken.Run)
	}
	if s.closed != nil {
		a.Closing, a.Why = string(s.closed.Closing), s.closed.Why
	}
	a.Tests = tests(s)
	if one := t.run(s.taken.Run); one != nil {
		t.people(&a, one, before)
		t.judged(&a, one, env)
		t.denied(&a, one, env)
	}
	a.Overrides = t.overrides(env, s)
	return a
}

func tests(s *slot) Tests {
	checks, end := verification(s)
	var n Tests
	if end != nil {
		n.Outcome = end.Outcome
	}
	for _, c := range checks {
		switch {
		case end != nil && c.Attempt != end.Attempt:
		case c.Outcome == string(events.Success):
			n.Passed++
		case c.Outcome == skipped || c.Outcome == string(events.Cancel):
			n.Skipped++
		default:
			n.Failed++
		}
	}
	return n
}

// people finds who wrote what a change brought.
func (t *Trail) people(a *Alteration, one *run, before *slot) {
	a.Pusher = person(one.start.Actor)
	a.Commits = Range{Repository: one.start.RepositoryURL, To: commit(one.start.SHA)}
	var from *run
	if before != nil {
		from = t.run(before.taken.Run)
	}
	if from != nil {
		a.Commits.From = commit(from.start.SHA)
	}
	if a.Kind != string(events.KindDeploy) {
		a.Commits.Back, a.Source = true, FromEvents
		return
	}
	ids := []string{one.start.Actor}
	written, whole := t.since(one, from)
	for _, id := range written {
		if !slices.Contains(ids, id) {
			ids = append(ids, id)
		}
	}
	a.Authors, a.Source = people(ids), Partly
	switch {
	case whole:
		a.Source = FromEvents
	case a.Commits.To == "":
		a.Source = FromNobody
	}
}

// mostAuthors is how many authors the gateway records of one push: with so many there may be more.
const mostAuthors = 50

// since returns who wrote the commits of the runs after one, up to another, and whether the ledger knows of them all:
// each run begins at the commit at which the one before it ended.
func (t *Trail) since(one, from *run) (authors []string, whole bool) {
	whole = one.start.SHA != ""
	for at := one; ; {
		if from != nil && at.start.SHA == from.start.SHA {
			return authors, whole
		}
		authors = append(authors, at.start.Authors...)
		whole = whole && len(at.start.Authors) < mostAuthors
		old := commit(at.start.OldSHA)
		if from != nil && old == from.start.SHA && old != "" {
			return authors, whole
		}
		next := t.run(at.start.Predecessor)
		if next == nil || next.n >= at.n || old != next.start.SHA || old == "" {
			return authors, false
		}
		at = next
	}
}

// judged adds who let the run in and what vetting said.
func (t *Trail) judged(a *Alteration, one *run, env events.Slug) {
	for _, f := range one.facts {
		switch b := f.body.(type) {
		case *events.PromotionApproved:
			by := person(b.Responder)
			known := slices.ContainsFunc(a.Approvers, func(p *Person) bool { return p.ID == b.Responder })
			if f.env == env && by != nil && !known && f.seq < a.Event {
				a.Approvers = append(a.Approvers, by)
			}
		case *events.VetRunFinished:
			for _, v := range b.Verdicts {
				if v.Environment == env && f.seq < a.Event {
					a.Policy, a.Verdict = b.Policy, string(v.Verdict)
				}
			}
		}
	}
}

// denied adds who denied the run's image, and whether they took that back.
func (t *Trail) denied(a *Alteration, one *run, env events.Slug) {
	for _, f := range one.facts {
		b, ok := f.body.(*events.CommandReceived)
		if !ok || b.Environment != env || b.Digest != a.After || f.seq >= a.Event {
			continue
		}
		switch b.Verb {
		case events.VerbDeny:
			a.Denials = append(a.Denials, Denial{Mark: f.mark(), By: person(b.Actor), Reason: b.Reason, id: b.ID})
		case events.VerbApprove:
			for i := range a.Denials {
				a.Denials[i].TakenBack = a.Denials[i].TakenBack || a.Denials[i].By.ID == b.Actor
				if slices.Contains(b.Overrules, a.Denials[i].id) {
					a.Denials[i].Overruled = person(b.Actor)
				}
			}
		}
	}
}

// overrides are the acts that led to a change otherwise than by a run's own way: what was asked for by name, and replays
// in this environment since the slot before.
func (t *Trail) overrides(env events.Slug, s *slot) []Act {
	list := []Act{}
	if a, ok := t.asked(s); ok {
		list = append(list, a)
	}
	one := t.run(s.taken.Run)
	if one == nil || s.taken.Kind != events.KindDeploy {
		return list
	}
	for _, f := range one.facts {
		a, ok := actOf(f)
		if !ok || a.Refused != "" || s.closed != nil && f.seq > s.ended.Event || a.Environment != "" && a.Environment != string(env) {
			continue
		}
		if overriding(a.Verb) && !slices.ContainsFunc(list, func(b Act) bool { return b.Event == a.Event }) {
			list = append(list, a)
		}
	}
	return list
}

// overriding reports whether a command goes beside the way that a run takes by itself.
func overriding(verb string) bool {
	switch verb {
	case events.VerbApprove, events.VerbDeny, events.VerbHold, events.VerbResume, events.VerbCancel:
		return false
	}
	return true
}

// Sort puts changes of several apps in the order in which they were made.
func (r *Report) Sort() {
	slices.SortStableFunc(r.Changes, func(a, b Alteration) int { return cmp.Compare(a.Event, b.Event) })
}

// People calls each with every person in the report.
func (r *Report) People(each func(*Person)) {
	for _, b := range r.Restores {
		each(b.By)
	}
	for _, a := range r.Alarms {
		each(a.By)
	}
	for _, c := range r.Changes {
		list := append(append([]*Person{c.Pusher}, c.Authors...), c.Approvers...)
		for _, o := range c.Overrides {
			list = append(list, o.By, o.Relay)
		}
		for _, d := range c.Denials {
			list = append(list, d.By, d.Overruled)
		}
		for _, p := range list {
			if p != nil {
				each(p)
			}
		}
	}
}

// Columns are the headings of the table that CSV writes.
var Columns = []string{
	"time", "environment", "app", "kind", "run", "digest before", "digest after", "run before", "repository", "commits", "pusher", "authors",
	"authors from", "approvers", "denied", "policy", "verdict", "tests", "passed", "failed", "skipped", "overrides", "outcome", "why", "event",
}

// CSV writes the report as RFC 4180 has it: a heading, then a line for each change, ended by CR LF. What a spreadsheet
// would take for a formula has an apostrophe in front.
func (r *Report) CSV(w io.Writer) error {
	out := csv.NewWriter(w)
	out.UseCRLF = true
	rows := [][]string{Columns}
	beside := func(at Mark, kind, what, why string) {
		row := make([]string, len(Columns))
		row[0], row[1], row[3], row[len(row)-1] = at.At.UTC().Format(time.RFC3339), r.Environment, kind, strconv.FormatUint(at.Event, 10)
		row[slices.Index(Columns, "overrides")], row[slices.Index(Columns, "why")] = what, why
		rows = append(rows, row)
	}
	for _, b := range r.Restores {
		beside(b.Mark, "ledger restored", b.String(), b.Reason)
	}
	for _, a := range r.Alarms {
		beside(a.Mark, "alarm ended", a.String(), a.Reason)
	}
	for _, c := range r.Changes {
		rows = append(rows, r.row(c))
	}
	for _, row := range rows {
		for i := range row {
			row[i] = harmless(row[i])
		}
		if err := out.Write(row); err != nil {
			return fmt.Errorf("writing the report: %w", err)
		}
	}
	out.Flush()
	return out.Error()
}

func (r *Report) row(c Alteration) []string {
	var overrides []string
	for _, o := range c.Overrides {
		overrides = append(overrides, o.String())
	}
	var denials []string
	for _, d := range c.Denials {
		denials = append(denials, d.String())
	}
	commits := c.Commits.String()
	if c.Commits.Back && commits != "" {
		commits += " (taken back)"
	}
	return []string{
		c.At.UTC().Format(time.RFC3339), r.Environment, c.App, c.Kind, c.Run, c.Before, c.After, c.BeforeRun, c.Commits.Repository, commits,
		c.Pusher.String(), Names(c.Authors), c.Source, Names(c.Approvers), strings.Join(denials, "; "), c.Policy, c.Verdict,
		c.Tests.Outcome, strconv.Itoa(c.Tests.Passed), strconv.Itoa(c.Tests.Failed), strconv.Itoa(c.Tests.Skipped),
		strings.Join(overrides, "; "), cmp.Or(c.Closing, "open"), c.Why, strconv.FormatUint(c.Event, 10),
	}
}

// harmless keeps a spreadsheet from taking a text for a formula.
func harmless(text string) string {
	if text != "" && strings.ContainsRune("=+-@\t\r\n|%", rune(text[0])) {
		return "'" + text
	}
	return text
}

// String is the person by name and id.
func (p *Person) String() string {
	switch {
	case p == nil:
		return ""
	case p.Erased:
		return "erased person (" + p.ID + ")"
	case p.Name == "":
		return p.ID
	}
	return p.Name + " (" + p.ID + ")"
}

// Names lists people.
func Names(list []*Person) string {
	names := make([]string, len(list))
	for i, p := range list {
		names[i] = p.String()
	}
	return strings.Join(names, ", ")
}

// String is the act in a few words: "replay promote prod by Ann (u-…): the setting was wrong".
func (a Act) String() string {
	text := a.Verb
	for _, more := range []string{a.Stage, a.Environment} {
		if more != "" {
			text += " " + more
		}
	}
	if a.Policy != "" {
		text += " under policy " + a.Policy
	}
	if a.By != nil {
		text += " by " + a.By.String()
	}
	if len(a.Roles) > 0 {
		text += " (" + strings.Join(a.Roles, ", ") + ")"
	}
	if a.Relay != nil {
		text += " through " + a.Relay.String()
	}
	if a.Refused != "" {
		text += ", refused: " + a.Refused
	}
	if a.Reason != "" {
		text += ": " + a.Reason
	}
	return text
}
