package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/nats-io/nats.go"

	"towpath.dev/pkg/identity"
	"towpath.dev/pkg/ledger"
	"towpath.dev/pkg/settings"
)

// problem is an answer that is no success: what failed, on what, why, and what to do.
type problem struct {
	Status int    `json:"-"`
	What   string `json:"what"`
	On     string `json:"on,omitempty"`
	Why    string `json:"why,omitempty"`
	Do     string `json:"do,omitempty"`
	Code   string `json:"code"`
	cause  error
}

func (p *problem) Error() string {
	text := p.What
	if p.On != "" {
		text += " " + p.On
	}
	if p.Why != "" {
		text += ": " + p.Why
	}
	return text
}

func (p *problem) Unwrap() error { return p.cause }

// Codes of problems, for programs.
const (
	codeInvalid     = "invalid"     // 400: the request makes no sense
	codeUnknown     = "unknown"     // 401: nobody is known by this token
	codeForbidden   = "forbidden"   // 403: the actor may not
	codeNotFound    = "not-found"   // 404
	codeMethod      = "method"      // 405
	codeConflict    = "conflict"    // 409: not in this state
	codeTooLarge    = "too-large"   // 413
	codeRefused     = "refused"     // 422: it can be read, and is not acceptable
	codeFailed      = "failed"      // 500, 502
	codeUnavailable = "unavailable" // 503: the ledger does not answer
)

func invalid(what, on, why, do string) *problem {
	return &problem{Status: http.StatusBadRequest, What: what, On: on, Why: why, Do: do, Code: codeInvalid}
}

func notFound(what, on, why, do string) *problem {
	return &problem{Status: http.StatusNotFound, What: what, On: on, Why: why, Do: do, Code: codeNotFound}
}

func conflict(what, on, why, do string) *problem {
	return &problem{Status: http.StatusConflict, What: what, On: on, Why: why, Do: do, Code: codeConflict}
}

func refused(what, on, why, do string) *problem {
	return &problem{Status: http.StatusUnprocessableEntity, What: what, On: on, Why: why, Do: do, Code: codeRefused}
}

func forbidden(what, on, why, do string) *problem {
	return &problem{Status: http.StatusForbidden, What: what, On: on, Why: why, Do: do, Code: codeForbidden}
}

// statusOf is the status of the refusals that are recorded, by their code; 0 for others.
func statusOf(code string) int {
	return map[string]int{
		codeForbidden: http.StatusForbidden, codeConflict: http.StatusConflict, codeRefused: http.StatusUnprocessableEntity,
	}[code]
}

// problemOf puts any error into the words of a problem.
func problemOf(err error) *problem {
	var p *problem
	var denied *identity.ForbiddenError
	var large *http.MaxBytesError
	var away *settings.UnavailableError
	switch {
	case errors.As(err, &p):
		return p
	case errors.As(err, &denied):
		p = forbidden(string(denied.Verb), denied.Object.String(), denied.Why, "ask an administrator of this Towpath")
	case errors.As(err, &away):
		p = &problem{Status: http.StatusServiceUnavailable, What: away.What, On: away.Store, Why: away.Why, Do: away.Do, Code: codeUnavailable}
	case errors.As(err, &large):
		p = &problem{
			Status: http.StatusRequestEntityTooLarge, What: "reading the request", Why: fmt.Sprintf("it has more than %d bytes", large.Limit),
			Do: "send less", Code: codeTooLarge,
		}
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, nats.ErrTimeout), errors.Is(err, nats.ErrNoResponders),
		errors.Is(err, nats.ErrConnectionClosed), errors.Is(err, nats.ErrConnectionReconnecting), errors.Is(err, nats.ErrDisconnected),
		errors.Is(err, nats.ErrReconnectBufExceeded), errors.Is(err, ledger.ErrBusLost):
		p = &problem{
			Status: http.StatusServiceUnavailable, What: "asking the ledger", Why: "it does not answer in time",
			Do: "try again; `towpath doctor` says what is missing", Code: codeUnavailable,
		}
	case errors.Is(err, ledger.ErrRefused):
		p = refused("recording this", "", err.Error(), "")
	default:
		p = &problem{Status: http.StatusInternalServerError, What: "answering", Why: err.Error(), Do: "see the gateway's log", Code: codeFailed}
	}
	p.cause = err
	return p
}

// write sends the problem as JSON.
func (p *problem) write(w http.ResponseWriter) {
	writeJSON(w, p.Status, struct {
		Error *problem `json:"error"`
	}{p})
}

// writeJSON sends a value. A client that is gone is its own affair.
func writeJSON(w http.ResponseWriter, status int, value any) {
	data, err := json.Marshal(value)
	if err != nil {
		http.Error(w, `{"error":{"what":"encoding the answer","code":"failed"}}`, http.StatusInternalServerError)
		return
	}
	http.NewResponseController(w).SetWriteDeadline(time.Now().Add(patience))
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	w.Write(append(data, '\n'))
}
