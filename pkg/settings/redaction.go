package settings

import "towpath.dev/events"

// RedactRequest asks promote (events.RedactSubject), which alone may read an app's secrets, to take them out of what an
// app printed that finds them itself: those of the slot's pins, and the present ones.
type RedactRequest struct {
	Env  events.Slug `json:"env"`
	App  events.Slug `json:"app"`
	Slot int         `json:"slot"`
	Text []byte      `json:"text"`
}

// RedactReply answers a RedactRequest. Where Error is not empty there is no text: some secret could not be read.
type RedactReply struct {
	Text  []byte `json:"text,omitempty"`
	Error string `json:"error,omitempty"`
}
