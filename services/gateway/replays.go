package gateway

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"towpath.dev/events"
	"towpath.dev/pkg/ledger"
	"towpath.dev/pkg/ledger/fold"
	"towpath.dev/pkg/pause"
	"towpath.dev/services/gateway/view"
)

// keepReplaying carries out the replays of all that is stuck, until ctx ends. All that it knows is in the ledger: after a
// crash the next process goes on where this one was.
func (s *Service) keepReplaying(ctx context.Context) {
	const shortest, longest = 100 * time.Millisecond, 10 * time.Second
	rest := shortest
	for ctx.Err() == nil {
		seq := s.fold().Seq()
		acted, err := s.desk.replayNext(ctx)
		switch {
		case err != nil && ctx.Err() == nil:
			s.logger.Warn("replaying what is stuck, to be tried again", "err", err)
			_ = pause.For(ctx, rest) // it ends with ctx, and so does the loop
			rest = min(2*rest, longest)
			continue
		case !acted:
			if s.fold().Wait(ctx, seq+1) != nil {
				return
			}
		}
		rest = shortest
	}
}

// replayNext does what the open replays of all that is stuck do next.
func (s *desk) replayNext(ctx context.Context) (acted bool, err error) {
	open := s.book.Replays()
	for i, c := range open {
		superseded := slices.ContainsFunc(open[i+1:], func(newer fold.Command) bool { return newer.App == "" || newer.App == c.App })
		targets, finished := decideReplays(c, s.book.App, superseded)
		for _, target := range targets {
			if err := s.replayOne(ctx, c, target); err != nil {
				return acted, err
			}
			acted = true
		}
		if finished != nil {
			subject := events.CommandSubject(s.book.Epoch(), finished.Type(), "", 0, "", c.ID)
			if err := s.appendOnce(ctx, subject, events.New(events.Gateway, time.Now(), "", finished)); err != nil {
				return acted, err
			}
			acted = true
		}
	}
	return acted, nil
}

// replayOne asks for the replay of one stage. The command's id is made from its parent's, so that it is one whoever
// comes to ask for it.
func (s *desk) replayOne(ctx context.Context, c fold.Command, target events.StuckStage) error {
	run := s.book.App(target.App).Run(target.Run)
	stage, _ := run.Stage(target.Stage, target.Environment)
	id := replayID(c.ID, target)
	body := &events.ReplayRequested{
		About: events.About{ID: id}, Stage: target.Stage, Environment: target.Environment, Attempt: target.Attempt,
		Original: stage.LastEvent, Actor: c.Actor, Reason: c.Reason, Parent: c.ID,
		Channel: c.Channel, Relay: c.Relay,
	}
	var links []events.Link
	if body.Original != "" {
		links = append(links, events.Relation("replays", body.Original))
	}
	subject := events.CommandSubject(s.book.Epoch(), body.Type(), target.App, target.Run, target.Environment, id)
	return s.appendOnce(ctx, subject, events.New(events.Gateway, time.Now(), run.ChainID, body, links...))
}

// replayID is the id of a part of a replay of all that is stuck.
func replayID(parent string, target events.StuckStage) string {
	return string(events.Key(parent, fold.Name(target.App, target.Run), target.Stage, string(target.Environment)))
}

// appendOnce writes an event; one that is there already is as good.
func (s *desk) appendOnce(ctx context.Context, subject events.Subject, event events.Event) error {
	ctx, cancel := context.WithTimeout(ctx, appendBound)
	defer cancel()
	_, err := s.book.Append(ctx, subject, event)
	var exists *ledger.ExistsError
	if errors.As(err, &exists) {
		return nil
	}
	return err
}

// doReplays shows how far a replay of all that is stuck is: what it did, and what is left.
func doReplays(c *call) error {
	id := c.r.PathValue("id")
	missing := notFound("finding replay", fmt.Sprintf("%.100s", id), "there is no replay of all that is stuck under this id", "towpath replay --all-stuck starts one")
	record, found, err := c.s.rt.Ledger.Written(c.r.Context(), events.CommandSubject(c.s.epoch(), events.TypeCommandReceived, "", 0, "", id))
	if err != nil {
		return err
	}
	received, ok := record.Event.Body.(*events.CommandReceived)
	if !found || !ok || received.Verb != events.VerbReplay {
		return missing
	}
	v := view.Replays{ID: id, Actor: received.Actor, Reason: received.Reason, At: record.Event.Time, Groups: []view.StuckGroup{}, Seq: record.Seq}
	end, found, err := c.s.rt.Ledger.Written(c.r.Context(), events.CommandSubject(c.s.epoch(), events.TypeCommandFinished, "", 0, "", id))
	if err != nil {
		return err
	}
	if body, ok := end.Event.Body.(*events.CommandFinished); found && ok {
		v.Finished, v.Why, v.Seq = true, body.Why, end.Seq
	}
	for _, group := range received.Groups {
		shown := view.StuckGroup{Cause: group.Cause}
		for _, target := range group.Stages {
			shown.Stages = append(shown.Stages, c.s.replaysDone(id, target))
		}
		v.Groups = append(v.Groups, shown)
	}
	writeJSON(c.w, http.StatusOK, v)
	return nil
}

func (s *Service) replaysDone(parent string, target events.StuckStage) view.ReplayStage {
	app := s.fold().App(target.App)
	r, _ := became(parent, target, app)
	done := shownStage(target)
	done.Result = r
	if app == nil || app.Run(target.Run) == nil {
		return done
	}
	run := app.Run(target.Run)
	name, env := stopped(run, target.Environment)
	stage, ok := run.Stage(name, env)
	if (r == view.Untried || r == view.StopAgain) && ok {
		done.Command = run.ReplayCommand(name, env)
		if stage.Trouble != nil {
			done.Why = stage.Trouble.String()
		}
	}
	return done
}
