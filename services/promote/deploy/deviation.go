package deploy

import (
	"context"
	"errors"
	"maps"
	"slices"

	"towpath.dev/events"
	"towpath.dev/pkg/engine"
)

// Deviation is a container that is otherwise than a slot has it. It holds no value of a setting.
type Deviation struct {
	What     string // container towpath-…-1
	Expected string
	Found    string
	Gone     bool // it does not run: Prepare makes it again
}

// Deviations compares the containers of a place with the instances of its live slot, whose version s is: whether each
// is there and runs, with the slot's image and configuration, is kept running, and has no limits, which nobody here sets,
// and, where the place is tidy, whether there are others.
// It changes nothing.
func (d *Deployer) Deviations(ctx context.Context, s Spec, instances []events.Instance, tidy bool) ([]Deviation, error) {
	e, err := d.deps.Engines.Environment(ctx, string(s.Place.Env))
	if err != nil {
		return nil, err
	}
	containers, err := e.List(ctx, d.placeLabels(s.Place))
	if err != nil {
		return nil, err
	}
	image, err := e.Image(ctx, s.Repository+"@"+s.Digest)
	if err != nil && !errors.Is(err, engine.ErrNotFound) {
		return nil, err
	}
	others := map[string]engine.State{}
	for _, c := range containers {
		others[c.Name] = c
	}
	var all []Deviation
	for _, i := range instances {
		state, there := others[i.ID]
		delete(others, i.ID)
		if one, deviates := deviation(s, i.ID, state, there, image.ID); deviates {
			all = append(all, one)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(others)) {
		state := others[name]
		role := state.Labels[LabelRole]
		if tidy && state.Running() && role != roleSecrets && role != roleRelease && slotOf(state.Labels) <= s.Slot {
			all = append(all, Deviation{What: "container " + name, Expected: "none", Found: "running image " + state.Image})
		}
	}
	return all, nil
}

// deviation compares one container with what it is to be. image is the id of the slot's image; empty: it is not known.
func deviation(s Spec, name string, state engine.State, there bool, image string) (Deviation, bool) {
	one := Deviation{What: "container " + name, Expected: "running"}
	switch {
	case !there:
		one.Found, one.Gone = "gone", true
		return one, true
	case !state.Running() && state.Status != "restarting":
		one.Found, one.Gone = state.Status, true
		return one, true
	case image != "" && state.Image != image:
		one.Expected, one.Found = "image "+image, "image "+state.Image
		return one, true
	}
	if state.Restart != "always" {
		one.Expected, one.Found = "restart policy always", "restart policy "+state.Restart
		return one, true
	}
	if state.Limits != "" {
		one.Expected, one.Found = "no limits", state.Limits
		return one, true
	}
	for _, key := range slices.Sorted(maps.Keys(s.Config)) {
		if !slices.Contains(state.Env, key+"="+s.Config[key]) {
			one.Expected, one.Found = "variable "+key+" as it is pinned", "another value, or none"
			return one, true
		}
	}
	return one, false
}
