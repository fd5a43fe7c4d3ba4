package promote

import (
	"fmt"

	"towpath.dev/events"
	"towpath.dev/pkg/ledger/fold"
)

// Blame says what is to be mended before a version can run.
type Blame int

// What may be to blame.
const (
	BlameVersion  Blame = iota // its replicas do not become healthy
	BlameRelease               // its release command fails
	BlameSettings              // values that it is pinned to are gone
)

// UnfitError says that a version cannot get the traffic as things are. Trying again is of no use.
type UnfitError struct {
	Blame   Blame
	Trouble events.Trouble // without Do
}

func (e *UnfitError) Error() string { return e.Trouble.String() }

// judge abandons an undecided slot whose version is unfit, and says who has to act: the author of the
// change, where nobody has seen this digest healthy before, else an operator.
func (v view) judge(s *fold.Slot, unfit *UnfitError) Say {
	t := unfit.Trouble
	run, env := v.holder(s)
	switch {
	case env == nil:
		t.Do = v.otherVersion()
		return v.abandoned(s, events.Error, &t)
	case unfit.Blame == BlameVersion && !run.VerifiedBefore(v.name, s.Digest):
		t.Do = "fix and push"
		return v.abandoned(s, events.Failure, &t)
	}
	t.Do = v.mend(unfit.Blame, run)
	return v.abandoned(s, events.Error, &t)
}

// giveUpOn abandons an undecided slot after the tries at it were used up.
func (v view) giveUpOn(s *fold.Slot, last error, tries int) Say {
	t := events.Trouble{What: "promoting to " + string(v.name), Why: last.Error(), Do: v.otherVersion(), Tries: tries}
	if run, env := v.holder(s); env != nil {
		t.Do = "mend it, then: " + run.ReplayCommand(fold.StagePromote, v.name)
	}
	return v.abandoned(s, events.Error, &t)
}

// mend says how an operator goes on.
func (v view) mend(b Blame, run *fold.Run) string {
	replay := run.ReplayCommand(fold.StagePromote, v.name)
	switch b {
	case BlameRelease:
		return fmt.Sprintf("mend what the release command needs, then: %s; or fix the command and push", replay)
	case BlameSettings:
		return fmt.Sprintf("set it again (towpath config set %s %s KEY=…, towpath secret set %s %s KEY), then: %s",
			v.name, v.app.Name, v.name, v.app.Name, replay)
	}
	return fmt.Sprintf("the same image was healthy before, so compare the settings (towpath config list %s %s), correct them (towpath config set %s %s KEY=…), then: %s",
		v.name, v.app.Name, v.name, v.app.Name, replay)
}

func (v view) otherVersion() string {
	if p := v.env.Plan; p != nil {
		return fmt.Sprintf("mend it, then: towpath env create %s --from %s", v.name, p.From)
	}
	return fmt.Sprintf("towpath rollback %s --env %s --to RUN, with a run that was verified there", v.app.Name, v.name)
}
