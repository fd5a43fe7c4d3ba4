package build

import (
	"errors"

	"towpath.dev/events"
)

// Fault is an end of a build that trying again at once cannot mend. Its outcome says who acts: after
// Failure the author of the change, after Error an operator. Every other error of this package is
// temporary, and the message is delivered again.
type Fault struct {
	Outcome events.Outcome
	Trouble events.Trouble
	Err     error // the cause, where there is one beyond the trouble's own words
}

func (f *Fault) Error() string { return f.Trouble.String() }

func (f *Fault) Unwrap() error { return f.Err }

// authorActs returns a fault that a new commit, or another commit, mends.
func authorActs(t events.Trouble) *Fault {
	if t.Do == "" {
		t.Do = "fix and push"
	}
	return &Fault{Outcome: events.Failure, Trouble: t}
}

// operatorActs returns a fault that the platform's operator mends; the stage can be replayed then.
func operatorActs(t events.Trouble) *Fault { return &Fault{Outcome: events.Error, Trouble: t} }

// faultOf returns the fault that err wraps, or nil for a temporary error.
func faultOf(err error) *Fault {
	var f *Fault
	if errors.As(err, &f) {
		return f
	}
	return nil
}
