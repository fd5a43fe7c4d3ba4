package promote

import (
	"fmt"
	"strings"

	"towpath.dev/events"
	"towpath.dev/pkg/ledger/fold"
)

// pipelineName is what the promotion of a run to one environment is called in CDEvents.
const pipelineName = "promote"

// stageID is the subject id of what is said about a run in the environment.
func (v view) stageID(run *fold.Run) string { return run.Name() + "/" + string(v.name) }

// about says something of a run's present attempt in the environment.
func (v view) about(run *fold.Run, env *fold.RunEnv, key events.Slug, b events.Body, links ...events.Link) Say {
	s := events.PromoteSubject(v.facts.Epoch, b.Type(), v.app.Name, run.N, v.name, key, env.Promote.Attempt)
	return Say{Subject: s, Chain: run.ChainID, Body: b, Links: links}
}

// finished ends a run's present attempt at the environment.
func (v view) finished(run *fold.Run, env *fold.RunEnv, o events.Outcome, t *events.Trouble) Say {
	b := &events.PipelineRunFinished{PipelineName: pipelineName, Outcome: o}
	b.ID = v.stageID(run)
	b.Result = events.Result{Environment: v.name, Attempt: env.Promote.Attempt, Trouble: t}
	if t != nil {
		b.Errors = t.String()
	}
	return v.about(run, env, "", b)
}

// started says that a run has a slot.
func (v view) started(s *fold.Slot, run *fold.Run, env *fold.RunEnv) Say {
	b := &events.PipelineRunStarted{
		PipelineName: pipelineName, URI: fmt.Sprintf("%s/runs/%s", v.facts.URL, run.Name()),
		Place: events.Place{Environment: v.name, Attempt: s.Attempt, Slot: s.N},
	}
	b.ID = v.stageID(run)
	return v.about(run, env, "", b)
}

// queued says what a run waits for. The key is made of what came before as well, because a reason may
// come back.
func (v view) queued(run *fold.Run, env *fold.RunEnv, w events.Waiting) Say {
	b := &events.PipelineRunQueued{PipelineName: pipelineName, Waiting: w}
	b.ID = v.stageID(run)
	return v.about(run, env, events.Key(w.Reason, w.Command, env.Promote.LastEvent), b)
}

// promotion is what an approval binds.
func (v view) promotion(run *fold.Run, gate Gate) events.Promotion {
	return events.Promotion{
		ArtifactID: run.ArtifactID, Environment: v.name, Policy: run.Policy,
		Requestor: run.Start.Actor, Wanted: gate.Approval.Count,
	}
}

func (v view) requested(run *fold.Run, env *fold.RunEnv, gate Gate) Say {
	b := &events.PromotionRequested{Promotion: v.promotion(run, gate)}
	b.ID = v.stageID(run)
	return v.about(run, env, "", b)
}

func (v view) approved(run *fold.Run, env *fold.RunEnv, gate Gate, c fold.Command) Say {
	b := &events.PromotionApproved{Promotion: v.promotion(run, gate)}
	b.ID, b.Responder, b.Decision, b.Reason = v.stageID(run), c.Actor, "approved", c.Reason
	return v.about(run, env, events.Key(c.ID), b)
}

func (v view) denied(run *fold.Run, env *fold.RunEnv, gate Gate, c fold.Command) Say {
	b := &events.PromotionDenied{Promotion: v.promotion(run, gate)}
	b.ID, b.Responder, b.Decision, b.Reason = v.stageID(run), c.Actor, "denied", c.Reason
	return v.about(run, env, events.Key(c.ID), b)
}

// refused says that the verdict on the artifact keeps it out.
func (v view) refused(run *fold.Run, env *fold.RunEnv, gate Gate, verdict events.EnvironmentVerdict) Say {
	b := &events.PromotionDenied{Promotion: v.promotion(run, gate)}
	b.ID, b.Decision = v.stageID(run), "denied"
	b.Reason = "the verdict is fail: " + strings.Join(verdict.Reasons, "; ")
	return v.about(run, env, "verdict", b)
}

// replayed says that a replay was taken up.
func (v view) replayed(run *fold.Run, env *fold.RunEnv) Say {
	attempt := env.Promote.Attempt
	b := &events.StageReplayed{Stage: fold.StagePromote, Environment: v.name, Attempt: attempt}
	b.ID = v.stageID(run)
	say := Say{
		Subject: events.StageReplayedSubject(v.facts.Epoch, events.Promote, v.app.Name, run.N, v.name, fold.StagePromote, attempt),
		Chain:   run.ChainID, Body: b,
	}
	if original := env.Promote.Replay.Original; original != "" {
		say.Links = []events.Link{events.Relation("replays", original)}
	}
	return say
}

// slot says something of a slot. What belongs to a run is in its chain.
func (v view) slot(n, run int, b events.Body) Say {
	say := Say{Subject: events.SlotSubject(v.facts.Epoch, b.Type(), v.app.Name, v.name, n), Body: b}
	if r := v.app.Run(run); r != nil {
		say.Chain = r.ChainID
	}
	return say
}

func (v view) taken(b *events.SlotTaken) Say { return v.slot(b.Slot, b.Run, b) }

// live is the commit point of a slot whose replicas are ready.
func (v view) live(s *fold.Slot, instances []events.Instance) Say {
	b := &events.SlotDecided{Slot: s.N, Decision: events.Live, Environment: v.name, Instances: instances}
	b.ID = v.slotID(s.N)
	return v.slot(s.N, s.Run, b)
}

func (v view) abandoned(s *fold.Slot, o events.Outcome, t *events.Trouble) Say {
	b := &events.SlotDecided{
		Slot: s.N, Decision: events.Abandoned, Environment: v.name, Why: t.String(), Outcome: o, Trouble: t,
	}
	b.ID = v.slotID(s.N)
	return v.slot(s.N, s.Run, b)
}

func (v view) closed(s *fold.Slot, c events.Closing, why string) Say {
	b := &events.SlotClosed{Slot: s.N, Closing: c, Why: why, Environment: v.name}
	b.ID = v.slotID(s.N)
	return v.slot(s.N, s.Run, b)
}

// unverified closes a live slot whose verification an operator skipped.
func (v view) unverified(s *fold.Slot, skip events.Skip) Say {
	b := &events.SlotClosed{
		Slot: s.N, Closing: events.Unverified, Environment: v.name, Skipped: &skip,
		Why: fmt.Sprintf("%s skipped its verification%s", skip.Actor, because(skip.Reason)),
	}
	b.ID = v.slotID(s.N)
	return v.slot(s.N, s.Run, b)
}

// deployed says what a live slot means for the service.
func (v view) deployed(s *fold.Slot) Say {
	deployment := events.Deployment{Environment: events.Reference{ID: string(v.name)}, ArtifactID: s.ArtifactID}
	details := events.Deployed{Slot: s.N, Run: s.Run, Pins: s.Pins}
	app := events.About{ID: string(v.app.Name)}
	var b events.Body
	switch {
	case s.Kind == events.KindRemove:
		b = &events.ServiceRemoved{About: app, Environment: deployment.Environment, Deployed: details}
	case s.Kind != events.KindDeploy:
		b = &events.ServiceRolledback{About: app, Deployment: deployment, Deployed: details}
	case v.served(s.N):
		b = &events.ServiceUpgraded{About: app, Deployment: deployment, Deployed: details}
	default:
		b = &events.ServiceDeployed{About: app, Deployment: deployment, Deployed: details}
	}
	subject := events.ServiceSubject(v.facts.Epoch, b.Type(), v.app.Name, s.Run, v.name, s.N)
	say := Say{Subject: subject, Body: b}
	if r := v.version(s); r != nil {
		say.Chain = r.ChainID
	}
	return say
}

// served reports whether the app ran in the environment just before slot n.
func (v view) served(n int) bool {
	for n--; n > 0; n-- {
		if s := v.env.Slot(n); s.Decision == events.Live {
			return s.Kind != events.KindRemove
		}
	}
	return false
}
