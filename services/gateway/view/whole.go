package view

import "towpath.dev/events"

// NewEnvironment is the body that makes an environment from another, or renews one that is there.
type NewEnvironment struct {
	ID     string                  `json:"id"`
	Name   events.Slug             `json:"name"`
	From   events.Slug             `json:"from"`
	TTL    string                  `json:"ttl"` // such as 2h; empty: it stays until it is destroyed
	Reason string                  `json:"reason"`
	Apps   map[events.Slug]Overlay `json:"apps"` // what is otherwise there than in From
}

// Overlay is settings of one app by key. Secrets never leave the settings store again.
type Overlay struct {
	Config  map[string]string `json:"config"`
	Secrets map[string]string `json:"secrets"`
}

// The states of an environment that somebody made.
const (
	StatePreparing  = "preparing" // its settings are being written, or were when whoever wrote them ended
	StateCreating   = "creating"
	StateUp         = "up"
	StateIncomplete = "incomplete" // something did not come up, the rest is up
	StateEnding     = "ending"
)

// EnvironmentAnswer is what became of a request about an environment.
type EnvironmentAnswer struct {
	Answer
	Warnings []string `json:"warnings,omitempty"`
}

// EnvironmentDiff is what differs between two environments: what runs there, and the settings as they are now.
type EnvironmentDiff struct {
	Left  string    `json:"left"`
	Right string    `json:"right"`
	Apps  []AppDiff `json:"apps"` // that differ
	Same  int       `json:"same"` // apps that do not
}

// AppDiff is what differs of one app. Left and Right are empty where it does not run there.
type AppDiff struct {
	App   string    `json:"app"`
	Left  Version   `json:"left"`
	Right Version   `json:"right"`
	Keys  []KeyDiff `json:"keys,omitempty"`
}

// Version is what runs of an app; empty: nothing.
type Version struct {
	Run      string `json:"run,omitempty"`
	Digest   string `json:"digest,omitempty"`
	Replicas int    `json:"replicas,omitempty"`
}

// KeyDiff is a key that is not the same in both environments. A secret has versions alone; those of the same version
// in different environments say nothing about its values.
type KeyDiff struct {
	Key          string  `json:"key"`
	Kind         string  `json:"kind"` // config or secret
	Left         *string `json:"left,omitempty"`
	Right        *string `json:"right,omitempty"`
	LeftVersion  uint64  `json:"leftVersion,omitempty"`  // 0: it is missing there
	RightVersion uint64  `json:"rightVersion,omitempty"` // 0: it is missing there
}
