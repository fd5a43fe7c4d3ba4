package vet

import (
	"context"
	"errors"
	"fmt"
	"time"

	"towpath.dev/events"
	"towpath.dev/pkg/ledger"
	"towpath.dev/pkg/ledger/fold"
)

// book is what a recorder writes to: the service's runtime.
type book interface {
	// Append stores an event and returns once the fold has it, as worker.Runtime's method does.
	Append(ctx context.Context, s events.Subject, e events.Event) (ledger.Record, error)
	Epoch() int
}

// recorder appends the events of one attempt at vetting a run's artifact.
type recorder struct {
	book    book
	run     *fold.Run
	attempt int
}

// append stores an event, with a link to what led to it. An event that is there already, from an earlier
// try at this attempt, counts.
func (r recorder) append(ctx context.Context, s events.Subject, body events.Body, links ...events.Link) error {
	links = append([]events.Link{events.Path(r.run.StartEvent)}, links...)
	_, err := r.book.Append(ctx, s, events.New(events.Vet, time.Now(), r.run.ChainID, body, links...))
	var exists *ledger.ExistsError
	if err != nil && !errors.As(err, &exists) {
		return fmt.Errorf("recording %s of %s: %w", body.Type(), r.run.Name(), err)
	}
	return nil
}

func (r recorder) subject(t events.Type, key events.Slug) events.Subject {
	return events.VetSubject(r.book.Epoch(), t, r.run.App, r.run.N, key, r.attempt)
}

func (r recorder) about() events.About { return events.About{ID: r.run.Name()} }

// started says that vetting begins and, where a replay asked for it, that the replay was taken up.
func (r recorder) started(ctx context.Context, replay *fold.Replay) error {
	if replay != nil {
		s := events.StageReplayedSubject(r.book.Epoch(), events.Vet, r.run.App, r.run.N, "", fold.StageVet, r.attempt)
		body := &events.StageReplayed{About: r.about(), Stage: fold.StageVet, Attempt: r.attempt}
		if err := r.append(ctx, s, body, events.Relation("replays", replay.EventID)); err != nil {
			return err
		}
	}
	return r.append(ctx, r.subject(events.TypeVetRunStarted, ""), &events.VetRunStarted{
		About: r.about(), ArtifactID: r.run.ArtifactID, Policy: r.run.Policy,
	})
}

// judged says that the signed report stands beside the image, and what it says.
func (r recorder) judged(ctx context.Context, v verdict) error {
	err := r.append(ctx, r.subject(events.TypeArtifactSigned, "verdict"), &events.ArtifactSigned{
		About: events.About{ID: r.run.ArtifactID}, Signature: v.signature,
		Signed: events.Signed{Statement: VerdictType, Referrer: string(v.referrer.Digest), KeyID: v.keyID},
	})
	if err != nil {
		return err
	}
	return r.finished(ctx, &events.VetRunFinished{
		Outcome: events.Success, Verdicts: v.report.Verdicts, Findings: v.report.inline(), Total: v.report.Total,
		Report: &events.Evidence{URI: v.referrer.URI(), Digest: string(v.referrer.Digest)}, SBOM: v.sbom(),
	})
}

// ended says that no verdict was reached, and why.
func (r recorder) ended(ctx context.Context, outcome events.Outcome, trouble events.Trouble) error {
	if outcome == events.Error && trouble.Do == "" {
		trouble.Do = r.run.ReplayCommand(fold.StageVet, "")
	}
	return r.finished(ctx, &events.VetRunFinished{Outcome: outcome, Result: events.Result{Trouble: &trouble}})
}

func (r recorder) finished(ctx context.Context, body *events.VetRunFinished) error {
	body.About, body.ArtifactID, body.Policy = r.about(), r.run.ArtifactID, r.run.Policy
	body.Result.Attempt = r.attempt
	if body.Verdicts == nil {
		body.Verdicts = []events.EnvironmentVerdict{}
	}
	return r.append(ctx, r.subject(events.TypeVetRunFinished, ""), body)
}
