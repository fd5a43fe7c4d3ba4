package fold

import "towpath.dev/events"

// KeptAsBytes counts what is.
func (r Runs) KeptAsBytes() int { return r.count - len(r.open) }

// KeptAsBytes counts what is.
func (s Slots) KeptAsBytes() int { return s.count - len(s.open) }

// FromBytes returns the app as it is when all of its runs and slots are read from their bytes.
func (a *App) FromBytes() *App {
	again := *a
	for run := range a.Runs.All() {
		again.Runs.set(run, true)
	}
	again.Envs = map[events.Slug]*Env{}
	for name, env := range a.Envs {
		other := *env
		for slot := range env.Slots.All() {
			other.Slots.set(slot, true)
		}
		again.Envs[name] = &other
	}
	return &again
}
