package client

import (
	"context"
	"net/http"
	"time"
)

// States of a Message.
const (
	MessageRetrying = "retrying" // tried again by itself
	MessageAside    = "aside"    // no event that can be trusted and read
	MessageParked   = "parked"   // it takes a newer build to read it
	MessageStopped  = "stopped"  // the bus no longer delivers it
)

// Message is a message of the ledger that a service has not settled.
type Message struct {
	State    string     `json:"state"`
	Seq      uint64     `json:"seq"`
	Subject  string     `json:"subject"`
	Type     string     `json:"type,omitempty"` // of a parked event
	Services []string   `json:"services"`       // that met it
	Run      string     `json:"run,omitempty"`
	Since    time.Time  `json:"since"`
	Why      string     `json:"why"`
	Tries    int        `json:"tries,omitempty"`
	Allowed  int        `json:"allowed,omitempty"` // tries that may fail
	Next     *time.Time `json:"next,omitempty"`    // try
	Do       string     `json:"do,omitempty"`
}

// Messages lists the messages that are tried again, and those that nobody acts on.
func (c *Client) Messages(ctx context.Context) ([]Message, error) {
	var list []Message
	err := c.call(ctx, request{method: http.MethodGet, path: []string{"v1", "messages"}, bound: quick}, &list)
	return list, err
}
