package deploy

import (
	"context"
	"errors"
	"fmt"
	"time"

	"towpath.dev/pkg/engine"
)

// releaseOutput bounds what is kept of a release command's output, bytes.
const releaseOutput = 32 << 10

// Released says how a release command went.
type Released struct {
	Adopted  bool // it was started by an earlier call
	Started  time.Time
	Finished time.Time
	Log      []string // its last lines, redacted
}

// Release runs the release command of s with the version's settings, once for the slot: where it was
// started before, by whomever, this waits for it and gives its result. A release of an earlier slot, which
// was abandoned, is ended first, so that at most one is at work; while it cannot be ended this is an error. A command that fails, cannot be
// run, or takes longer than s.ReleaseTimeout is a *ReleaseError, each time. Without a command it does
// nothing.
func (d *Deployer) Release(ctx context.Context, s Spec) (Released, error) {
	if len(s.Release) == 0 {
		return Released{}, nil
	}
	st, err := d.stage(ctx, s)
	if err != nil {
		return Released{}, err
	}
	s = st.spec
	network, leave, err := d.join(ctx, st)
	if err != nil {
		return Released{}, err
	}
	defer leave()
	if err := d.endEarlier(ctx, st); err != nil {
		return Released{}, err
	}
	c := d.container(st, roleRelease, d.name(s.Place, s.Slot, roleRelease), network)
	c.Command = s.Release
	_, err = st.engine.Inspect(ctx, c.Name)
	if errors.Is(err, engine.ErrNotFound) {
		err = d.equip(ctx, st, &c, roleRelease)
	}
	if err != nil {
		return Released{}, err
	}
	r, err := st.engine.RunOnce(ctx, c, engine.Bounds{Timeout: s.ReleaseTimeout, Output: releaseOutput})
	if err != nil {
		return Released{}, err
	}
	out := Released{Adopted: r.Adopted, Started: r.Started, Finished: r.Finished, Log: lines(s.redact(r.Output))}
	why := ""
	switch {
	case r.Error != "":
		why = "it cannot be run: " + s.redact(r.Error)
	case r.TimedOut:
		why = fmt.Sprintf("it was ended after %s, its limit", s.ReleaseTimeout)
	case r.ExitCode != 0:
		why = fmt.Sprintf("it exited with code %d", r.ExitCode)
	default:
		return out, nil
	}
	return out, &ReleaseError{On: s.Place.String(), Command: s.redact(fmt.Sprintf("%q", s.Release)), Why: why, Log: out.Log}
}

// endEarlier removes the releases of the place's earlier slots. One of a later slot says that this slot's
// turn is over.
func (d *Deployer) endEarlier(ctx context.Context, st *stage) error {
	labels := d.placeLabels(st.spec.Place)
	labels[LabelRole] = roleRelease
	found, err := st.engine.List(ctx, labels)
	if err != nil {
		return err
	}
	for _, c := range found {
		switch slot := slotOf(c.Labels); {
		case slot > st.spec.Slot:
			return fmt.Errorf("releasing slot %d of %s: slot %d has its release already", st.spec.Slot, st.spec.Place, slot)
		case slot < st.spec.Slot:
			if err := st.engine.Remove(ctx, c.ID); err != nil {
				return fmt.Errorf("ending the release of slot %d: %w", slot, err)
			}
		}
	}
	return nil
}
