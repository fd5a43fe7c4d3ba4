package gateway

import (
	"fmt"

	"towpath.dev/events"
	"towpath.dev/pkg/ledger/fold"
)

// decideSkip judges that a run is to pass an environment without its verification.
func decideSkip(o order, s scope, run *fold.Run, d decision) (decision, *problem) {
	on := run.Name() + " " + o.Stage
	switch {
	case o.Stage != fold.StageVerify:
		return d, forbidden("skipping", on, "only verify can be skipped: never vetting, never an approval", "towpath skip "+run.Name()+" verify --env ENV --reason TEXT")
	case o.Env == "":
		return d, whichEnvironment("skipping", on, run, o.Stage)
	case o.Reason == "":
		return d, invalid("skipping", on, "no reason is given; every report shows it", "give it with --reason")
	}
	on += " in " + string(o.Env)
	env := run.Env(o.Env)
	switch {
	case !s.maySkip(run, o.Env):
		return d, forbidden("skipping", on, "the platform's policy, by which the run is judged, does not allow it there",
			"the platform's owner lists the environment under policy: maySkip; then towpath replay "+run.Name()+" promote --env "+string(o.Env)+" --policy current")
	case run.SupersededBy != 0:
		return d, conflict("skipping", on, fold.Name(run.App, run.SupersededBy)+" took its place", "")
	case run.Cancelled != nil:
		return d, conflict("skipping", on, "it is cancelled", run.ReplayCommand(fold.StagePromote, o.Env))
	case env.Verified:
		return d, conflict("skipping", on, "it is through already", "towpath show "+run.Name())
	case env.Skip != nil:
		return d, conflict("skipping", on, "it is being skipped already, as "+env.Skip.Actor+" asked", "towpath show "+run.Name())
	case env.Verify.Status == fold.Pending && env.Slot == 0:
		return d, conflict("skipping", on, "it has not come that far", "towpath show "+run.Name())
	case halted(env.Promote):
		return d, conflict("skipping", on, "it could not be deployed there, so there is nothing to verify", run.ReplayCommand(fold.StagePromote, o.Env))
	}
	if newer := newerIn(s.app, run, o.Stage, o.Env); newer != 0 {
		return d, conflict("skipping", on, fold.Name(run.App, newer)+" runs there by now", "")
	}
	d.text = fmt.Sprintf("%s passes %s without verification; every report on it says so", run.Name(), o.Env)
	if slot := s.app.Env(o.Env).Slot(env.Slot); slot == nil || !slot.Open() {
		d.text = fmt.Sprintf("%s is deployed to %s again and passes without verification; every report on it says so", run.Name(), o.Env)
	}
	d.command.Digest = ""
	if run.Artifact != nil {
		d.command.Digest = run.Artifact.Digest
	}
	return d, nil
}

// maySkip reports whether the policy that a run is judged by lets operators skip its verification in an environment.
func (s *Service) maySkip(run *fold.Run, env events.Slug) bool {
	p, known := s.policyBy(run.Policy)
	return known && p.MaySkipVerify(env)
}
