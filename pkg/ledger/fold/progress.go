package fold

import (
	"slices"

	"towpath.dev/events"
	"towpath.dev/pkg/ledger"
)

// apply folds an event of the run in. Events of an attempt other than the present one are fenced: they
// change nothing.
func (r *Run) apply(rec ledger.Record) {
	switch rec.Subject.Writer {
	case events.Build:
		r.applyBuild(rec)
	case events.Vet:
		r.applyVet(rec)
	case events.Promote:
		r.applyPromote(rec)
	case events.Verify:
		r.applyVerify(rec)
	case events.Watch:
		r.applyWatch(rec)
	}
}

func (r *Run) applyBuild(rec ledger.Record) {
	s := &r.Build
	if rec.Subject.Attempt != s.Attempt {
		return
	}
	switch b := rec.Event.Body.(type) {
	case *events.BuildQueued:
		s.touch(rec)
		if !s.Ended() {
			s.alive(Queued)
		}
	case *events.StageReplayed:
		s.touch(rec)
		s.Replayed = true
	case *events.BuildStarted:
		s.begin(rec)
	case *events.ArtifactPublished:
		if !s.Ended() {
			artifact := b.Published.Artifact
			r.Artifact, r.ArtifactID = &artifact, b.ID
			if r.Vet.begun() { // with an artifact that is no longer the run's
				r.renewVet(s.Replay)
			}
			r.forgetOthers(artifact.Digest)
		}
		s.end(rec, Done, events.Success, nil)
	case *events.TaskRunFinished:
		if b.Outcome == events.Success {
			s.Concluded = true
		} else {
			s.end(rec, statusOf(b.Outcome), b.Outcome, trouble(b.Result.Trouble, b.Errors))
		}
		s.touch(rec)
	case *events.BuildFinished:
		s.Concluded = s.Concluded || s.Ended() && s.Outcome != events.Success
		s.touch(rec)
	default:
		s.touch(rec)
	}
}

func (r *Run) applyVet(rec ledger.Record) {
	s := &r.Vet
	if rec.Subject.Attempt != s.Attempt {
		return
	}
	switch b := rec.Event.Body.(type) {
	case *events.StageReplayed:
		s.touch(rec)
		s.Replayed = true
	case *events.VetRunStarted:
		s.begin(rec)
	case *events.VetRunFinished:
		if b.Outcome == events.Success && !s.Ended() {
			r.Verdict = b
			r.compare(rec.Seq)
		}
		s.end(rec, statusOf(b.Outcome), b.Outcome, trouble(b.Result.Trouble, ""))
	default:
		s.touch(rec)
	}
}

func (r *Run) applyPromote(rec ledger.Record) {
	e := r.Env(rec.Subject.Env)
	if e == nil || rec.Subject.Attempt != e.Promote.Attempt {
		return
	}
	s := &e.Promote
	switch b := rec.Event.Body.(type) {
	case *events.PromotionRequested:
		s.touch(rec)
		e.Requested = b
		if !s.Ended() {
			s.alive(Waiting)
		}
	case *events.PromotionApproved:
		s.touch(rec)
		e.Approvals = append(slices.Clone(e.Approvals), b.Promotion)
	case *events.PromotionDenied:
		e.Denied = &b.Promotion
		what := "promotion to " + string(e.Name) + " denied"
		if b.Responder != "" {
			what += " by " + b.Responder
		}
		s.end(rec, Refused, events.Failure, &events.Trouble{What: what, Why: b.Reason})
	case *events.PipelineRunQueued:
		s.touch(rec)
		if !s.Ended() && e.Slot == 0 {
			waiting := b.Waiting
			e.Waiting = &waiting
			s.alive(Waiting)
		}
	case *events.StageReplayed:
		s.touch(rec)
		s.Replayed = true
	case *events.PipelineRunFinished:
		e.Concluded = true
		if s.Outcome == events.Success && s.Stuck != nil {
			s.Status, s.Stuck, s.Trouble = Done, nil, nil
		}
		if b.Outcome != events.Success {
			s.end(rec, statusOf(b.Outcome), b.Outcome, trouble(b.Result.Trouble, b.Errors))
		}
		s.touch(rec)
	default:
		s.touch(rec)
	}
}

func (r *Run) applyVerify(rec ledger.Record) {
	e := r.Env(rec.Subject.Env)
	if e == nil || rec.Subject.Attempt != e.Verify.Attempt {
		return
	}
	s := &e.Verify
	switch b := rec.Event.Body.(type) {
	case *events.TestSuiteRunStarted:
		if b.Trial.Slot == e.Slot {
			s.begin(rec)
		}
	case *events.TestSuiteRunFinished:
		switch {
		case b.Trial.Slot != e.Slot:
		case b.Trial.Skipped != nil:
			s.end(rec, Skipped, b.Outcome, nil)
		default:
			s.end(rec, statusOf(b.Outcome), b.Outcome, trouble(b.Trial.Trouble, b.Reason))
		}
	case *events.StageReplayed:
		s.touch(rec)
		s.Replayed = true
	}
}

func (r *Run) applyWatch(rec ledger.Record) {
	b, ok := rec.Event.Body.(*events.StageStuck)
	if !ok {
		return
	}
	s := r.stage(b.Stage, b.Environment)
	if s == nil || s.Attempt != b.Attempt {
		return
	}
	s.Reported++
	if s.Outcome == events.Failure {
		return
	}
	// A promotion has its outcome once its slot is live, and is still to close the slot by verify's result.
	e := r.Env(b.Environment)
	if s.Outcome == events.Success && (b.Stage != StagePromote || e.Verified || e.Concluded || !e.Verify.Ended()) {
		return
	}
	s.Stuck, s.Status = b, Stuck
	if s.Trouble == nil && b.LastError != "" {
		s.Trouble = &events.Trouble{What: b.Stage + " is stuck", Why: b.LastError, Do: b.Command}
	}
}

func trouble(t *events.Trouble, text string) *events.Trouble {
	if t == nil && text != "" {
		return &events.Trouble{What: text}
	}
	return t
}

// replay makes room for a new attempt at a stage, and at the later stages that its result may change.
// A verification whose slot has ended needs a new slot, and so a new promotion. newest is the digest of the
// newest policy: where the run is to be judged by it from now on, its image is vetted again first. It reports
// whether the replay counts.
func (r *Run) replay(rec ledger.Record, b *events.ReplayRequested, newest string, slotEnded bool) bool {
	why := &Replay{EventID: rec.Event.ID, Seq: rec.Seq, At: rec.Event.Time, ReplayRequested: *b}
	if s := r.stage(b.Stage, b.Environment); s == nil || b.Attempt != 0 && b.Attempt != s.Attempt {
		return false
	}
	r.Cancelled = nil
	if b.Policy != "" && b.Policy == newest && b.Policy != r.Policy {
		r.Policies = append(slices.Clone(r.Policies), PolicyChange{From: r.Policy, To: b.Policy, Seq: rec.Seq})
		r.Policy = b.Policy
		if e := r.Env(b.Environment); e != nil && (b.Stage == StagePromote || b.Stage == StageVerify) {
			if r.renewVet(why); e.Promote.Replay != why {
				e.renew(why)
			}
			return true
		}
	}
	switch b.Stage {
	case StageBuild:
		r.Build.renew(why)
		r.Artifact, r.ArtifactID = nil, ""
		r.renewVet(why)
	case StageVet:
		r.renewVet(why)
	case StagePromote:
		if e := r.Env(b.Environment); e != nil {
			e.renew(why)
		}
	case StageVerify:
		e := r.Env(b.Environment)
		switch {
		case e == nil:
		case slotEnded:
			e.renew(why)
		default:
			e.Skip = nil
			e.Verify.renew(why)
		}
	}
	return true
}

// skip makes room for an attempt at verification that verifies nothing.
func (r *Run) skip(c Command, eventID string, e *RunEnv, slotEnded bool) {
	why := &Replay{EventID: eventID, Seq: c.Seq, At: c.At, ReplayRequested: events.ReplayRequested{
		About: events.About{ID: c.ID}, Stage: StageVerify, Environment: e.Name, Actor: c.Actor, Reason: c.Reason,
	}}
	r.Cancelled = nil
	if slotEnded {
		e.renew(why)
	} else {
		e.Verify.renew(why)
	}
	e.Skip = &c
}

// compare marks the environments for which the verdict on the same artifact differs from the one before.
func (r *Run) compare(seq uint64) {
	before := r.Judged
	if before == nil || before.ArtifactID != r.Verdict.ArtifactID {
		return
	}
	for _, e := range r.Envs {
		was, _ := before.For(e.Name)
		is, _ := r.Verdict.For(e.Name)
		if !was.Same(is) {
			e.Rejudged, e.Approvals = seq, nil
		}
	}
}

func (r *Run) renewVet(why *Replay) {
	if r.Vet.begun() {
		r.Vet.renew(why)
	}
	if r.Verdict != nil {
		r.Judged = r.Verdict
	}
	r.Verdict = nil
	for _, e := range r.Envs {
		if !e.Verified && e.Promote.begun() {
			e.renew(why)
		}
	}
}

// renew makes room for another attempt at the environment. Approvals survive.
func (e *RunEnv) renew(why *Replay) {
	e.Promote.renew(why)
	if e.Verify.begun() {
		e.Verify.renew(why)
	}
	e.Slot, e.Verified, e.VerifiedDigest, e.Concluded = 0, false, "", false
	e.Requested, e.Waiting, e.Denied, e.Skip, e.Skipped = nil, nil, nil, nil, nil
}

// forgetOthers makes the run pass again through environments where it was verified with another
// artifact, which a replayed build may have replaced.
func (r *Run) forgetOthers(digest string) {
	for _, e := range r.Envs {
		if e.Verified && e.VerifiedDigest != digest {
			e.renew(r.Build.Replay)
		}
	}
}

// takeBack makes room for another attempt where people refused the present one and, by an approval, none does any more.
func (r *Run) takeBack(c Command, e *RunEnv) {
	refused := e.Denied != nil && e.Denied.Responder != ""
	if c.Verb != events.VerbApprove || !refused || r.Artifact == nil || c.Digest != r.Artifact.Digest || len(e.Denials(c.Digest)) > 0 {
		return
	}
	e.renew(&Replay{Seq: c.Seq, At: c.At, ReplayRequested: events.ReplayRequested{
		Stage: StagePromote, Environment: e.Name, Actor: c.Actor, Reason: c.Reason,
	}})
}

// command applies a command that names the run.
func (r *Run) command(c Command) {
	e := r.Env(c.Environment)
	switch c.Verb {
	case events.VerbCancel:
		if r.Status() != Done && r.Cancelled == nil && (e == nil || !e.Verified) {
			r.Cancelled = &c
		}
	case events.VerbApprove, events.VerbDeny:
		if e != nil {
			e.Responses = append(slices.Clone(e.Responses), c)
			r.takeBack(c, e)
		}
	case events.VerbPromote:
		if e != nil {
			r.SupersededBy, r.Cancelled = 0, nil
			e.Forced = &c
			if e.Promote.Ended() || e.Slot != 0 {
				e.renew(&Replay{Seq: c.Seq, At: c.At, ReplayRequested: events.ReplayRequested{
					Stage: StagePromote, Environment: c.Environment, Actor: c.Actor, Reason: c.Reason,
				}})
			}
		}
	}
}
