package promote

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"towpath.dev/events"
	"towpath.dev/pkg/ledger/fold"
	"towpath.dev/pkg/pipeline"
	"towpath.dev/pkg/policy"
)

// candidate is a run that has come as far as the environment and has not been there.
type candidate struct {
	run  *fold.Run
	env  *fold.RunEnv
	gate Gate
}

// Candidates returns the numbers of the runs that could be promoted to an environment next, so that their
// gates can be looked up: their artifact was vetted, they were verified in the environment before, with
// the same digest, and nothing ended them.
func Candidates(a *fold.App, env events.Slug) []int {
	var runs []int
	for _, c := range newView(a, env, Facts{}).candidates() {
		runs = append(runs, c.run.N)
	}
	return runs
}

// Restorable returns the numbers of the slots that commands may bring back to an environment.
func Restorable(a *fold.App, env events.Slug) []int {
	v := newView(a, env, Facts{})
	var slots []int
	for _, c := range v.env.Rollbacks {
		if s := v.target(c); s != nil {
			slots = append(slots, s.N)
		}
	}
	return slots
}

// candidates are in the order of their turns: those that an operator asked for first, then the newest or,
// where the newest one's pipeline queues, the oldest.
func (v view) candidates() []candidate {
	if !v.found.done {
		v.found.all, v.found.done = v.findCandidates(), true
	}
	return v.found.all
}

func (v view) findCandidates() []candidate {
	var all []candidate
	for run := range v.app.Open() {
		env := run.Env(v.name)
		if env == nil || !arrived(run, env) {
			continue
		}
		all = append(all, candidate{run, env, v.facts.Gates[run.N]})
	}
	if len(all) == 0 {
		return nil
	}
	queue := all[len(all)-1].run.Definition.OnNewer == pipeline.Queue
	slices.SortStableFunc(all, func(a, b candidate) int {
		if a.forced() != b.forced() {
			return cmp.Compare(b.forced(), a.forced())
		}
		if queue {
			return cmp.Compare(a.run.N, b.run.N)
		}
		return cmp.Compare(b.run.N, a.run.N)
	})
	return all
}

// forced is when an operator asked for the promotion, by the ledger's sequence; 0: never.
func (c candidate) forced() uint64 {
	if c.env.Forced == nil {
		return 0
	}
	return c.env.Forced.Seq
}

// arrived reports whether it is the run's turn to enter the environment.
func arrived(run *fold.Run, env *fold.RunEnv) bool {
	if env.Slot != 0 || env.Verified || env.Promote.Ended() || run.Cancelled != nil || run.SupersededBy != 0 {
		return false
	}
	if run.Artifact == nil || run.Verdict == nil || run.Verdict.ArtifactID != run.ArtifactID {
		return false
	}
	for _, earlier := range run.Envs {
		if earlier == env {
			return true
		}
		if !earlier.Verified || earlier.VerifiedDigest != run.Artifact.Digest {
			return false
		}
	}
	return false
}

// gates says what is new about the runs that wait: replays taken up, approvals that count, refusals, and
// what each waits for.
func (v view) gates() Step {
	for _, c := range v.candidates() {
		if s := v.answer(c); s != nil {
			return s
		}
		w, waits := v.waits(c)
		if !waits || w.Reason == "" || c.env.Waiting != nil && *c.env.Waiting == w {
			continue
		}
		return v.queued(c.run, c.env, w)
	}
	return nil
}

// next returns the candidate that may have the environment now, but for a slot in flight, or nil.
func (v view) next() *candidate {
	for _, c := range v.candidates() {
		if v.answer(c) != nil {
			continue
		}
		if _, waits := v.barred(c); !waits {
			return &c
		}
	}
	return nil
}

// mayCome reports whether a candidate may have the environment now, or could but for settings that cannot be read.
func (v view) mayCome() bool {
	for _, c := range v.candidates() {
		if w, waits := v.barred(c); v.answer(c) == nil && (!waits || w.Reason == "") {
			return true
		}
	}
	return false
}

// answer returns what has to be recorded before anything else can be said about a candidate, or nil.
func (v view) answer(c candidate) Step {
	verdict, ok := c.run.VerdictFor(v.name)
	if c.run.Verdict.Policy != c.run.Policy {
		return v.finished(c.run, c.env, events.Error, &events.Trouble{
			What: "promoting to " + string(v.name), Why: fmt.Sprintf("vetting judged by the policy %s, the run is judged by %s", c.run.Verdict.Policy, c.run.Policy),
			Do: c.run.ReplayCommand(fold.StageVet, ""),
		})
	}
	if !ok {
		return v.finished(c.run, c.env, events.Error, &events.Trouble{
			What: "promoting to " + string(v.name), Why: "vetting gave no verdict for it",
			Do: c.run.ReplayCommand(fold.StageVet, ""),
		})
	}
	if replay := c.env.Promote.Replay; replay != nil && replay.EventID != "" && !c.env.Promote.Replayed {
		return v.replayed(c.run, c.env)
	}
	if verdict.Verdict == events.Fail {
		return v.refused(c.run, c.env, c.gate, verdict)
	}
	if c.gate.Fault != "" {
		return nil
	}
	digest := c.run.Artifact.Digest
	if no := c.env.Denials(digest); len(no) > 0 {
		return v.denied(c.run, c.env, c.gate, no[0])
	}
	for _, r := range c.env.LastWords(digest) {
		if c.objection(r) == "" && !c.counted(r.Actor) {
			return v.approved(c.run, c.env, c.gate, r)
		}
	}
	if len(c.approvers()) < c.gate.Approval.Count && c.env.Requested == nil {
		return v.requested(c.run, c.env, c.gate)
	}
	return nil
}

// objection says why an approval does not count, or "".
func (c candidate) objection(r fold.Command) string {
	switch {
	case r.Digest != c.run.Artifact.Digest:
		return "it is for another digest"
	case r.Seq <= c.gate.Since:
		return "it was given before the policy or the verdict changed"
	case !c.gate.Approval.AuthorMayApprove && (r.Actor == c.run.Start.Actor || slices.Contains(c.run.Start.Authors, r.Actor)):
		return "the policy wants somebody who did not write or push the change"
	}
	return ""
}

// approvers returns who let this artifact into the environment, under the run's policy, each once.
func (c candidate) approvers() []string {
	return policy.Counted(c.env.Approvals, c.run.ArtifactID, c.run.Policy)
}

func (c candidate) counted(actor string) bool { return slices.Contains(c.approvers(), actor) }

// waits says what a candidate waits for; false when it may go at once.
func (v view) waits(c candidate) (events.Waiting, bool) {
	w, waits := v.barred(c)
	if !waits || w.Reason == "" && v.inFlight() {
		w, waits = v.behind(c)
	}
	w.Environment, w.Attempt = v.name, c.env.Promote.Attempt
	return w, waits
}

// barred says what keeps a candidate out, a slot in flight apart. The reason is empty where it is only that its settings
// cannot be read: whoever waits for the store says so, for as long as that is.
func (v view) barred(c candidate) (events.Waiting, bool) {
	for _, bar := range []func(candidate) (events.Waiting, bool){v.made, v.faulty, v.unset, v.older, v.pinned, v.unapproved, v.held, v.queues} {
		if w, waits := bar(c); waits {
			return w, true
		}
	}
	return events.Waiting{}, c.gate.Unread
}

// faulty: nobody can say what the gates are.
func (v view) faulty(c candidate) (events.Waiting, bool) {
	return events.Waiting{Reason: c.gate.Fault, For: "an operator"}, c.gate.Fault != ""
}

// unset: declared settings have no value, or one that cannot be deployed.
func (v view) unset(c candidate) (events.Waiting, bool) {
	var keys, reasons, commands []string
	for _, m := range c.gate.Missing {
		if m.Unfit == "" {
			keys = append(keys, m.Key)
		} else {
			reasons = append(reasons, m.String())
		}
		commands = append(commands, m.Command)
	}
	switch len(keys) {
	case 0:
	case 1:
		reasons = slices.Insert(reasons, 0, fmt.Sprintf("%s has no value in %s", keys[0], v.name))
	default:
		reasons = slices.Insert(reasons, 0, fmt.Sprintf("%s have no value in %s", strings.Join(keys, ", "), v.name))
	}
	return events.Waiting{Reason: strings.Join(reasons, "; "), For: "an operator", Command: strings.Join(commands, " && ")}, len(reasons) > 0
}

// older: a newer run has the traffic, and nobody asked for the older one since.
func (v view) older(c candidate) (events.Waiting, bool) {
	live := v.env.Live()
	if live == nil || live.Kind == events.KindRemove || c.run.N >= live.Run || c.forced() > live.TakenSeq {
		return events.Waiting{}, false
	}
	return events.Waiting{
		Reason: fmt.Sprintf("%s, which is newer, runs in %s", fold.Name(v.app.Name, live.Run), v.name),
		For:    "an operator", Command: v.promoteCommand(c.run),
	}, true
}

// pinned: an operator brought a version back. It stays until somebody lets a run in afterwards, by the
// command to promote it or by an approval, and that run is verified.
func (v view) pinned(c candidate) (events.Waiting, bool) {
	var pin *fold.Slot
	for s := range v.env.Slots.Backward() {
		let := s.Kind == events.KindDeploy && s.Closing.Stands()
		if s.Decision != events.Live || s.Kind != events.KindRestore && !let {
			continue
		}
		if !let {
			pin = s
		}
		break
	}
	if pin == nil || c.forced() > pin.TakenSeq {
		return events.Waiting{}, false
	}
	for _, r := range c.env.Responses {
		if r.Verb == events.VerbApprove && r.Seq > pin.TakenSeq && c.objection(r) == "" {
			return events.Waiting{}, false
		}
	}
	return events.Waiting{
		Reason: fmt.Sprintf("an operator brought %s back to %s", fold.Name(v.app.Name, pin.Run), v.name),
		For:    "an operator", Command: v.promoteCommand(c.run),
	}, true
}

func (v view) promoteCommand(run *fold.Run) string {
	return fmt.Sprintf("towpath promote %s --env %s", run.Name(), v.name)
}

// unapproved: people have to let it in. Approvals that do not count are named.
func (v view) unapproved(c candidate) (events.Waiting, bool) {
	there := len(c.approvers())
	if there >= c.gate.Approval.Count {
		return events.Waiting{}, false
	}
	reason := fmt.Sprintf("%d of %d approvals given", there, c.gate.Approval.Count)
	for _, r := range c.env.Responses {
		if r.Verb != events.VerbApprove {
			continue
		}
		if objection := c.objection(r); objection != "" {
			reason += fmt.Sprintf("; that of %s does not count: %s", r.Actor, objection)
		}
	}
	return events.Waiting{
		Reason: reason, For: "an approver",
		Command: fmt.Sprintf("towpath approve %s --env %s", c.run.Name(), v.name),
	}, true
}

// held: nothing new begins.
func (v view) held(candidate) (events.Waiting, bool) {
	h := v.app.Hold
	if h == nil {
		return events.Waiting{}, false
	}
	w := events.Waiting{Reason: fmt.Sprintf("held by %s%s", h.Actor, because(h.Reason)), For: "an operator", Command: "towpath resume " + string(v.app.Name)}
	if h.All {
		w.Command = "towpath resume --all"
	}
	return w, true
}

// queues: the pipeline lets every run take its turn, and an older one is still on its way here.
func (v view) queues(c candidate) (events.Waiting, bool) {
	if c.run.Definition.OnNewer != pipeline.Queue || c.forced() > 0 {
		return events.Waiting{}, false
	}
	for older := range v.app.Open() {
		if older.N >= c.run.N {
			break
		}
		env := older.Env(v.name)
		if env == nil || env.Verified || env.Promote.Ended() || older.Status().Ended() {
			continue
		}
		return events.Waiting{
			Reason: fmt.Sprintf("%s goes to %s first", older.Name(), v.name), For: "run " + older.Name(),
			Command: "towpath cancel " + older.Name(),
		}, true
	}
	return events.Waiting{}, false
}

// behind: another has the environment at the moment.
func (v view) behind(c candidate) (events.Waiting, bool) {
	last := v.env.Last()
	if last == nil || !last.Open() {
		return events.Waiting{}, false
	}
	name := fold.Name(v.app.Name, last.Run)
	w := events.Waiting{Reason: fmt.Sprintf("%s is on its way in %s", name, v.name), For: "run " + name}
	switch last.Kind {
	case events.KindRollback, events.KindRestore:
		w.Reason = fmt.Sprintf("%s is being brought back to %s", name, v.name)
	case events.KindRemove:
		w.Reason = fmt.Sprintf("%s is being removed from %s", name, v.name)
	}
	return w, true
}
