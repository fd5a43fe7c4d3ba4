package promote

import (
	"fmt"

	"towpath.dev/events"
	"towpath.dev/pkg/ledger/fold"
)

// vacate takes the slot that ends what runs in an environment which is to be destroyed. Where nothing runs it takes one all
// the same: a process that does not know of the end yet may be about to take the next slot for its plan, and learns of the
// end when it comes second.
func (v view) vacate() Step {
	if v.env.Ending == 0 || v.inFlight() || vacated(v.env) {
		return nil
	}
	b := v.claim(events.KindRemove)
	if b.Run == 0 && v.env.Plan != nil {
		b.Run = v.env.Plan.Run
	}
	return v.taken(b)
}

// furnish takes a slot for what an environment that somebody made is to hold of the app, once for each plan: where its
// version does not come up, whoever asked for it has to ask again.
func (v view) furnish() Step {
	p := v.env.Plan
	if p == nil || v.env.Ending != 0 || v.occupied() || v.app.Hold != nil || v.env.Carrier() != nil {
		return nil
	}
	b := v.claim(events.KindCreate)
	b.Run, b.ArtifactID, b.Repository, b.Digest = p.Run, p.ArtifactID, p.Repository, p.Digest
	b.Pins, b.Command, b.Like = p.Pins, p.Command, p.Like
	return v.taken(b)
}

// vacated reports whether an app has nothing in an environment that could still come up, whoever is behind: it never had a
// plan there, or its last slot was taken to end it, after it was to be destroyed.
func vacated(env *fold.Env) bool {
	live, last := env.Live(), env.Last()
	if last != nil && last.Open() || live != nil && live.Kind != events.KindRemove {
		return false
	}
	return env.Plan == nil || last != nil && last.Kind == events.KindRemove && last.TakenSeq > env.Ending
}

// made: somebody made the environment, so it is no stage of a pipeline, whatever the run's pipeline says.
func (v view) made(candidate) (events.Waiting, bool) {
	return events.Waiting{
		Reason: fmt.Sprintf("%s is an environment that somebody made, and no stage", v.name), For: "an operator",
		Command: fmt.Sprintf("towpath env destroy %s", v.name),
	}, v.env.Plan != nil || v.env.Ending != 0
}
