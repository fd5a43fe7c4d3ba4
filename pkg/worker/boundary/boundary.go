// Package boundary names the points between the steps of a worker at which a process may die. A program that is
// built with the tag "faults" can be made to die at exactly one of them (faults.go says how); in every other build
// Reached is an empty function, which the compiler leaves out.
package boundary

// Boundary is a point that a worker passes while it handles a message. What comes before it is done, what comes
// after it is not begun.
type Boundary string

// The boundaries, in the order in which a message meets them. A handler that does several things meets those in
// the middle several times.
const (
	Received Boundary = "received" // the message is here, verified, and the fold has reached it
	Decided  Boundary = "decided"  // it is known what to do
	Effect   Boundary = "effect"   // what is done outside the ledger is done
	Event    Boundary = "event"    // the door has answered that the event is stored
	Ack      Boundary = "ack"      // the message is settled
)

// All are the boundaries in their order.
var All = []Boundary{Received, Decided, Effect, Event, Ack}
