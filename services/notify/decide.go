package notify

import (
	"fmt"
	"time"

	"towpath.dev/events"
	"towpath.dev/pkg/ledger/fold"
	"towpath.dev/pkg/policy"
)

// notice is something that people want to hear of.
type notice struct {
	ID      events.Slug // the same for the same thing, however often it is sent
	Seq     uint64      // the event that it was read from
	At      time.Time   // of that event
	Kind    string      // one of policy.NoticeKinds
	App     events.Slug
	Run     int
	Stage   string
	Env     events.Slug
	Text    string // in one line
	Detail  string
	Command string // what acts on it
	left    int    // KindLeftOut: how many
}

// decide says what an event gives people to hear of, as its app stands now: what no longer stands is of no use to
// anybody. now may be nil, for what belongs to no app.
func decide(now *fold.App, seq uint64, subject events.Subject, event events.Event) (notice, bool) {
	if body, ok := event.Body.(*events.AlarmRaised); ok {
		return alarm(seq, subject, event, body.Alarm), true
	}
	run := runOf(now, subject, event)
	if run == nil {
		return notice{}, false
	}
	n := notice{Seq: seq, At: event.Time, App: run.App, Run: run.N}
	switch body := event.Body.(type) {
	case *events.PipelineRunQueued:
		return n.approval(now, run, body.Waiting)
	case *events.StageStuck:
		return n.stuck(run, subject, body)
	case *events.DriftDetected:
		return n.drift(now, subject, body.Drift)
	case *events.SlotClosed:
		// A rollback closes slots of runs that were done long ago.
		if slot := now.Env(body.Environment).Slot(body.Slot); slot != nil && slot.Kind == events.KindDeploy {
			return n.ended(now, run)
		}
	case *events.TaskRunFinished, *events.VetRunFinished, *events.PipelineRunFinished, *events.TestSuiteRunFinished, *events.PromotionDenied:
		return n.ended(now, run)
	}
	return notice{}, false
}

// runOf is the run that an event belongs to, or nil.
func runOf(app *fold.App, subject events.Subject, event events.Event) *fold.Run {
	if app == nil {
		return nil
	}
	if run := app.Run(subject.Run); run != nil {
		return run
	}
	if event.ChainID == "" {
		return nil
	}
	return app.OfChain(event.ChainID)
}

// forApprover is whom promote says that a run waits for.
const forApprover = "an approver"

// approval is wanted where nothing else is waited for any more.
func (n notice) approval(app *fold.App, run *fold.Run, w events.Waiting) (notice, bool) {
	env := run.Env(w.Environment)
	if w.For != forApprover || env == nil || env.Promote.Attempt != w.Attempt || env.Waiting == nil || env.Waiting.For != forApprover ||
		env.Promote.Status != fold.Waiting || app.StatusOf(run).Ended() {
		return n, false
	}
	n.Kind, n.Stage, n.Env = policy.NoticeApproval, fold.StagePromote, w.Environment
	n.Text = fmt.Sprintf("%s waits for an approval in %s", run.Name(), w.Environment)
	n.Detail = w.Reason
	n.Command = fmt.Sprintf("towpath approve %s --env %s", run.Name(), w.Environment)
	n.ID = events.Key(n.Kind, run.ChainID, string(n.Env), fmt.Sprint(w.Attempt), w.Reason)
	return n, true
}

// stuck is told of each time: an attempt that went on can get stuck again, and only the subject's key tells the times apart.
func (n notice) stuck(run *fold.Run, subject events.Subject, b *events.StageStuck) (notice, bool) {
	stage, ok := run.Stage(b.Stage, b.Environment)
	if !ok || stage.Stuck == nil || stage.Attempt != b.Attempt {
		return n, false
	}
	n.Kind, n.Stage, n.Env = policy.NoticeStuck, b.Stage, b.Environment
	n.Text = fmt.Sprintf("%s is stuck in %s: an operator has to act", run.Name(), place(b.Stage, b.Environment))
	n.Detail, n.Command = b.LastError, b.Command
	n.ID = events.Key(n.Kind, run.ChainID, string(subject.Key), string(b.Environment), fmt.Sprint(b.Attempt))
	return n, true
}

// drift is worth hearing of also where it is over by now: a container that was gone is made again at once.
func (n notice) drift(app *fold.App, subject events.Subject, d events.Drift) (notice, bool) {
	n.Kind, n.Env = policy.NoticeDrift, d.Environment
	n.Text = fmt.Sprintf("%s in %s was changed behind Towpath's back", app.Name, d.Environment)
	n.Detail = fmt.Sprintf("%s: %s, expected: %s", d.What, d.Found, d.Expected)
	n.Command = "towpath env show " + string(d.Environment)
	n.ID = events.Key(n.Kind, string(app.Name), string(d.Environment), fmt.Sprint(subject.Attempt))
	return n, true
}

// alarm is worth hearing of also where it is over by now: somebody may have used what they got.
func alarm(seq uint64, subject events.Subject, event events.Event, a events.Alarm) notice {
	return notice{
		Seq: seq, At: event.Time, Kind: policy.NoticeAlarm, App: a.App, Env: a.Environment,
		Text: fmt.Sprintf("ALARM in %s: %s may be in other hands", a.Environment, a.What), Detail: a.Why + "; " + a.Do, Command: "towpath stuck",
		ID: events.Key(policy.NoticeAlarm, string(subject.Writer), fmt.Sprint(subject.Attempt)),
	}
}

// ended is a run that has come to its end, or to one that its author has to act on.
func (n notice) ended(app *fold.App, run *fold.Run) (notice, bool) {
	switch status := app.StatusOf(run); status {
	case fold.Done:
		n.Kind = policy.NoticeDone
		n.Text = run.Name() + " is done: verified in every environment"
		n.Command = "towpath show " + run.Name()
		n.ID = events.Key(n.Kind, run.ChainID, run.ArtifactID)
		return n, true
	case fold.Failed, fold.Refused:
		n.Kind = policy.NoticeFailed
		stage := n.halted(run, status)
		n.Text = fmt.Sprintf("%s %s in %s: its author has to act", run.Name(), verbOf(status), place(n.Stage, n.Env))
		if n.Stage == "" {
			n.Text = fmt.Sprintf("%s %s: its author has to act", run.Name(), verbOf(status))
		}
		n.Command = "towpath show " + run.Name()
		n.ID = events.Key(n.Kind, run.ChainID, n.Stage, string(n.Env), fmt.Sprint(stage.Attempt))
		return n, true
	}
	return n, false
}

// halted finds the stage at which the run ended.
func (n *notice) halted(run *fold.Run, status fold.Status) fold.Stage {
	at := func(stage string, env events.Slug, s fold.Stage) fold.Stage {
		n.Stage, n.Env = stage, env
		if s.Trouble != nil {
			n.Detail = s.Trouble.String()
		}
		return s
	}
	if run.Build.Status == status {
		return at(fold.StageBuild, "", run.Build)
	}
	if run.Vet.Status == status {
		return at(fold.StageVet, "", run.Vet)
	}
	for _, env := range run.Envs {
		switch {
		case env.Denied != nil:
			n.Detail = "it was denied"
			if env.Denied.Responder != "" {
				n.Detail += " by " + env.Denied.Responder
			}
			if env.Denied.Reason != "" {
				n.Detail += ": " + env.Denied.Reason
			}
			n.Stage, n.Env = fold.StagePromote, env.Name
			return env.Promote
		case env.Promote.Status == status:
			return at(fold.StagePromote, env.Name, env.Promote)
		case env.Verify.Status == status:
			return at(fold.StageVerify, env.Name, env.Verify)
		}
	}
	return fold.Stage{}
}

func verbOf(status fold.Status) string {
	if status == fold.Refused {
		return "is refused"
	}
	return "failed"
}

func place(stage string, env events.Slug) string {
	if env == "" {
		return stage
	}
	return stage + " (" + string(env) + ")"
}
