package events

import "time"

// Types of what happens to environments that somebody made, apart from those that pipelines name, and of what is
// found to be otherwise than the ledger says. Watch writes that one's time is over, promote all the rest.
const (
	TypeEnvironmentCreated  Type = "dev.cdevents.environment.created.0.3.0"
	TypeEnvironmentModified Type = "dev.cdevents.environment.modified.0.3.0"
	TypeEnvironmentDeleted  Type = "dev.cdevents.environment.deleted.0.3.0"
	TypeEnvironmentExpired  Type = "dev.cdeventsx.towpath-environment.expired.0.1.0"
	TypeDriftDetected       Type = "dev.cdeventsx.towpath-drift.detected.0.1.0"
	TypeDriftResolved       Type = "dev.cdeventsx.towpath-drift.resolved.0.1.0"
)

// EnvironmentApp is one app of an environment that is to be made: the version of a slot of the environment that it is
// made from, with settings of its own.
type EnvironmentApp struct {
	App  Slug `json:"app"`
	Slot int  `json:"slot"` // of the environment that it is made from
	Pins Pins `json:"pins"` // versions in the environment that is made
}

// Made is the customData of the events about an environment.
type Made struct {
	From    Slug       `json:"from,omitempty"`    // the environment that it is made from
	Actor   string     `json:"actor,omitempty"`   // who asked; empty where its time was over
	Command string     `json:"command,omitempty"` // id of the command
	Expires *time.Time `json:"expires,omitempty"`
}

// EnvironmentCreated is written when an environment is about to be filled: from now on its apps have a plan, which is
// that of the command. Its subject id is the environment. Promote acts on it.
type EnvironmentCreated struct {
	About
	Name string `json:"name,omitempty"`
	Made Made   `json:"-"`
}

// EnvironmentModified is EnvironmentCreated for an environment that is there: it is brought to another plan.
type EnvironmentModified struct {
	About
	Name string `json:"name,omitempty"`
	Made Made   `json:"-"`
}

// EnvironmentDeleted is written when nothing of an environment is left: no container, network, volume, route or setting.
// The numbers of its slots go on where it is made again.
type EnvironmentDeleted struct {
	About
	Name string `json:"name,omitempty"`
	Made Made   `json:"-"`
}

// EnvironmentExpired is written when the time of an environment is over. It counts only while Command is the one that
// made it or renewed it last. Its subject id is the environment. Promote takes it down.
type EnvironmentExpired struct {
	About
	Environment Slug      `json:"environment"`
	Command     string    `json:"command"`
	Expired     time.Time `json:"expired"`
}

// Drift is something of an app in an environment that is otherwise than the ledger says. It holds no value.
type Drift struct {
	App         Slug   `json:"app"`
	Environment Slug   `json:"environment"`
	Slot        int    `json:"slot"`     // that is live
	What        string `json:"what"`     // "container towpath-…-1", "config GREETING"
	Expected    string `json:"expected"` // "running image sha256:…", "version 4"
	Found       string `json:"found"`    // "gone", "version 6"
}

// DriftDetected is written once when something is found that was changed behind Towpath's back. Its subject id is
// <app>/<env>/<what>. People act on it; a container that is gone is made again by itself.
type DriftDetected struct {
	About
	Drift
}

// DriftResolved is written once what was found is as it should be again, or no longer matters.
type DriftResolved struct {
	About
	Drift
}

// EnvironmentSubject is where the events about an environment are stored: each once for a command.
func EnvironmentSubject(epoch int, w Writer, t Type, env Slug, command string) Subject {
	return at(epoch, w, t, "", 0, env, Key(command), 0)
}

// DriftSubject is where drift.detected and drift.resolved are stored: for the nth drift (1 and up) of an app in an
// environment.
func DriftSubject(epoch int, t Type, app, env Slug, nth int) Subject {
	return at(epoch, Promote, t, app, 0, env, "", nth)
}

func (*EnvironmentCreated) Type() Type    { return TypeEnvironmentCreated }
func (b *EnvironmentCreated) custom() any { return &b.Made }

func (*EnvironmentModified) Type() Type    { return TypeEnvironmentModified }
func (b *EnvironmentModified) custom() any { return &b.Made }

func (*EnvironmentDeleted) Type() Type    { return TypeEnvironmentDeleted }
func (b *EnvironmentDeleted) custom() any { return &b.Made }

func (*EnvironmentExpired) Type() Type  { return TypeEnvironmentExpired }
func (*EnvironmentExpired) custom() any { return nil }
func (*DriftDetected) Type() Type       { return TypeDriftDetected }
func (*DriftDetected) custom() any      { return nil }
func (*DriftResolved) Type() Type       { return TypeDriftResolved }
func (*DriftResolved) custom() any      { return nil }
