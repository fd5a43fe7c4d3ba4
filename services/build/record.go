package build

import (
	"context"
	"errors"
	"fmt"
	"time"

	"towpath.dev/events"
	"towpath.dev/pkg/ledger"
	"towpath.dev/pkg/ledger/fold"
	"towpath.dev/pkg/registry"
	"towpath.dev/pkg/registry/provenance"
)

// book is what a recorder writes to: the service's runtime.
type book interface {
	// Append stores an event and returns once the fold has it, as worker.Runtime's method does.
	Append(ctx context.Context, s events.Subject, e events.Event) (ledger.Record, error)
	Epoch() int
}

// recorder appends the events of one attempt at building a run.
type recorder struct {
	book    book
	run     *fold.Run
	attempt int
}

// taskName is that of TaskRunFinished where it ends a build.
const taskName = "build"

// append stores an event, with a link to what led to it. Where the event is there already, from an
// earlier try at this attempt, that one is returned: it counts.
func (r recorder) append(ctx context.Context, key events.Slug, body events.Body, links ...events.Link) (events.Event, error) {
	s := events.BuildSubject(r.book.Epoch(), body.Type(), r.run.App, r.run.N, key, r.attempt)
	return r.appendAt(ctx, s, body, links...)
}

func (r recorder) appendAt(ctx context.Context, s events.Subject, body events.Body, links ...events.Link) (events.Event, error) {
	e := events.New(events.Build, time.Now(), r.run.ChainID, body, append([]events.Link{events.Path(r.run.StartEvent)}, links...)...)
	stored, err := r.book.Append(ctx, s, e)
	var exists *ledger.ExistsError
	if errors.As(err, &exists) {
		return exists.Winner.Event, nil
	}
	if err != nil {
		return events.Event{}, fmt.Errorf("recording %s of %s: %w", body.Type(), r.run.Name(), err)
	}
	return stored.Event, nil
}

func (r recorder) about() events.About { return events.About{ID: r.run.Name()} }

// queued says that the build waits for a free builder.
func (r recorder) queued(ctx context.Context) error {
	_, err := r.append(ctx, "", &events.BuildQueued{About: r.about()})
	return err
}

// started says that the build begins and, where a replay asked for it, that the replay was taken up.
func (r recorder) started(ctx context.Context, replay *fold.Replay) error {
	if replay != nil {
		s := events.StageReplayedSubject(r.book.Epoch(), events.Build, r.run.App, r.run.N, "", fold.StageBuild, r.attempt)
		body := &events.StageReplayed{About: r.about(), Stage: fold.StageBuild, Attempt: r.attempt}
		if _, err := r.appendAt(ctx, s, body, events.Relation("replays", replay.EventID)); err != nil {
			return err
		}
	}
	_, err := r.append(ctx, "", &events.BuildStarted{About: r.about()})
	return err
}

// errOtherPackaged says that another try at the attempt has named another image first.
var errOtherPackaged = errors.New("another try at this attempt has packaged another image")

// packaged names the image. The first try at an attempt that gets here fixes which image it is.
func (r recorder) packaged(ctx context.Context, a registry.Artifact, repository string) (registry.Artifact, error) {
	body := &events.ArtifactPackaged{
		About:  events.About{ID: a.PURL()},
		Change: events.Reference{ID: r.run.Start.SHA, Source: repository},
	}
	e, err := r.append(ctx, "", body)
	if err != nil {
		return registry.Artifact{}, err
	}
	fixed, err := registry.ParsePURL(e.Body.SubjectID())
	if err == nil && fixed != a {
		err = errOtherPackaged
	}
	return fixed, err
}

// published says that the image and its provenance are in the registry. It makes the attempt a success,
// and is the last event that needs more than the ledger to be written: what comes after can be made up
// for from it.
func (r recorder) published(ctx context.Context, p product) error {
	about := events.About{ID: p.artifact.PURL()}
	_, err := r.append(ctx, "provenance", &events.ArtifactSigned{
		About: about, Signature: p.provenance.Signature,
		Signed: events.Signed{Statement: provenance.PredicateType, Referrer: string(p.provenance.Referrer.Digest), KeyID: p.provenance.KeyID},
	})
	if err != nil {
		return err
	}
	_, err = r.append(ctx, "", &events.ArtifactPublished{About: about, Published: events.Published{Artifact: events.Artifact{
		Repository: p.artifact.Repository.String(), Digest: string(p.artifact.Digest), Tree: p.inputs,
		ReusedFrom: p.reusedFrom(), Provenance: string(p.provenance.Referrer.Digest),
	}}})
	return err
}

// ended records how the attempt ended without an image. It comes before build.finished, so that a crash
// between the two leaves an attempt that has ended.
func (r recorder) ended(ctx context.Context, outcome events.Outcome, trouble events.Trouble) error {
	if outcome != events.Failure && trouble.Do == "" {
		trouble.Do = r.run.ReplayCommand(fold.StageBuild, "")
	}
	return r.task(ctx, outcome, &trouble)
}

func (r recorder) task(ctx context.Context, outcome events.Outcome, trouble *events.Trouble) error {
	body := &events.TaskRunFinished{
		About: r.about(), TaskName: taskName, Outcome: outcome,
		PipelineRun: &events.Reference{ID: r.run.Name()},
		Result:      events.Result{Attempt: r.attempt, Trouble: trouble},
	}
	if trouble != nil {
		body.Errors = trouble.String()
	}
	_, err := r.append(ctx, "", body)
	return err
}

// finished writes what follows an attempt's end.
func (r recorder) finished(ctx context.Context, outcome events.Outcome, artifactID string) error {
	body := &events.BuildFinished{About: r.about()}
	if outcome == events.Success {
		body.ArtifactID = artifactID
	}
	if _, err := r.append(ctx, "", body); err != nil || outcome != events.Success {
		return err
	}
	return r.task(ctx, events.Success, nil)
}
