package promote

import (
	"sync"

	"towpath.dev/events"
)

// Place is one app in one environment.
type Place struct {
	App events.Slug
	Env events.Slug
}

// turns lets one goroutine of this process at a time work on a place. Who comes while another is at work
// does not wait: the other looks again before it goes.
type turns struct {
	mu     sync.Mutex
	places map[Place]*turn
}

// turn is what this process knows of a place. What it remembers belongs to whoever has the turn.
type turn struct {
	busy  bool
	again bool
	memory
}

// memory is what this process has done at a place.
type memory struct {
	switched int             // the slot that the traffic was sent to
	cleaned  Cleaned         // the state after which what is not needed was removed
	untidy   bool            // the removal failed: to be tried again at the next sweep
	waived   int             // the slot whose switch no longer waits for older requests
	suspects map[string]bool // what was found at the last look, and may be about to be said in the ledger
	unsure   bool            // some of it was not found at the look before
}

func newTurns() *turns { return &turns{places: map[Place]*turn{}} }

// begin takes the turn, or has whoever has it look again.
func (t *turns) begin(p Place) (*memory, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	at := t.places[p]
	if at == nil {
		at = &turn{}
		t.places[p] = at
	}
	if at.busy {
		at.again = true
		return nil, false
	}
	at.busy, at.again = true, false
	return &at.memory, true
}

// end gives the turn back, unless somebody came meanwhile: then it stays with the caller, who looks again.
func (t *turns) end(p Place) (again bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	at := t.places[p]
	again, at.again = at.again, false
	at.busy = again
	return again
}

// mine is what this process knows of a place at which the caller has the turn.
func (t *turns) mine(p Place) *memory {
	t.mu.Lock()
	defer t.mu.Unlock()
	return &t.places[p].memory
}

// waive has the switch to a slot wait no longer for requests at older ones.
func (t *turns) waive(p Place, slot int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.places[p].waived = slot
}

// retryCleaning forgets what could not be removed at a place, so that it is tried again.
func (t *turns) retryCleaning(p Place) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if at := t.places[p]; at != nil && at.untidy && !at.busy {
		at.cleaned, at.untidy = Cleaned{}, false
	}
}

// unsure reports whether a second look at a place has to say whether something was changed there.
func (t *turns) unsure() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, at := range t.places {
		if !at.busy && at.memory.unsure {
			return true
		}
	}
	return false
}

// drop gives the turn back in any case.
func (t *turns) drop(p Place) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.places[p].busy = false
}

// forgetSwitch has the traffic of a place looked after anew. It is false while somebody is at work there.
func (t *turns) forgetSwitch(p Place) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	at := t.places[p]
	if at != nil && at.busy {
		return false
	}
	if at != nil {
		at.switched = 0
	}
	return true
}
