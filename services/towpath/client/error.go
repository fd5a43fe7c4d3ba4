package client

import (
	"net/http"
	"strings"
)

// Codes of errors that arise on this side. The gateway has its own; Kind puts both into classes.
const (
	CodeUnreachable = "unreachable"
	CodeTimeout     = "timeout"
	CodeInvalid     = "invalid"
	CodeFailed      = "failed"
)

// Error says what failed, on what, why, and what to do about it.
type Error struct {
	What   string `json:"what"`           // "approving"
	On     string `json:"on,omitempty"`   // "hello/1 in prod"
	Why    string `json:"why,omitempty"`  // "you wrote 2 of these commits"
	Do     string `json:"do,omitempty"`   // "ask somebody else to approve"
	Code   string `json:"code,omitempty"` // for programs
	Status int    `json:"-"`              // of HTTP; 0: the gateway did not answer
	cause  error
}

// Error is the whole in one line.
func (e *Error) Error() string {
	text := e.What
	if e.On != "" {
		text += " " + e.On
	}
	if e.Why != "" {
		text += ": " + strings.TrimRight(e.Why, "\n")
	}
	if e.Do != "" {
		text += " (" + e.Do + ")"
	}
	return text
}

// Unwrap returns what caused a call to get no answer, or nil.
func (e *Error) Unwrap() error { return e.cause }

// Kind is the class of a failure, as exit codes have it.
type Kind int

// The kinds.
const (
	Failed   Kind = iota // it did not work
	Usage                // what was asked makes no sense
	NotFound             // it is not there
	Refused              // authorisation, gate or policy says no
	TimedOut             // no answer in time
)

// Kind returns the class of the failure.
func (e *Error) Kind() Kind {
	switch e.Status {
	case http.StatusBadRequest, http.StatusMethodNotAllowed, http.StatusRequestEntityTooLarge:
		return Usage
	case http.StatusNotFound:
		return NotFound
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusConflict, http.StatusUnprocessableEntity:
		return Refused
	case http.StatusRequestTimeout, http.StatusGatewayTimeout:
		return TimedOut
	}
	switch e.Code {
	case CodeTimeout:
		return TimedOut
	case CodeInvalid:
		return Usage
	}
	return Failed
}
