package events

import "time"

// TypeStageStuck is the type that watch writes.
const TypeStageStuck Type = "dev.cdeventsx.towpath-stage.stuck.0.1.0"

// StageStuck is written when an attempt at a stage ended in an error, ran out of tries, or passed its
// deadline with no event that ends it. Its subject id is <app>/<run>/<stage>[/<env>]. An operator acts.
type StageStuck struct {
	About
	Stage       string    `json:"stage"`
	Environment Slug      `json:"environment,omitempty"`
	Attempt     int       `json:"attempt"`
	LastEvent   string    `json:"lastEvent"` // context.id
	Since       time.Time `json:"since"`
	Deliveries  int       `json:"deliveries,omitempty"` // tries within the attempt, where known
	LastError   string    `json:"lastError,omitempty"`
	// Cause is LastError without what differs from run to run (names, digests, times): stages that are
	// stuck for the same reason share it.
	Cause   string `json:"cause,omitempty"`
	Command string `json:"command"` // what replays it
}

func (*StageStuck) Type() Type  { return TypeStageStuck }
func (*StageStuck) custom() any { return nil }
