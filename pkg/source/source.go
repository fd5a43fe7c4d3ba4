// Package source says where the source of a run is, and lets a service read from the repositories that the gateway
// hosts: by a statement that it signs with its own key, so that no further secret has to be spread.
//
// A run whose first event names no repository was pushed to the gateway; URL is where its repository is then, and
// opens to User with Password. Every commit that a run names can be fetched from there by its full id, also after its
// branch was moved or deleted.
package source

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/secure-systems-lab/go-securesystemslib/dsse"

	"towpath.dev/events"
	"towpath.dev/pkg/identity"
)

// User is the user name that goes with Password in HTTP basic authentication.
const User = "towpath-service"

// Lifetime is how long after it was made a Password opens anything.
const Lifetime = 10 * time.Minute

const payloadType = "application/vnd.towpath.source-read.v1+json"

// skew is how far the clocks of two machines may be apart.
const skew = 2 * time.Minute

// ErrPassword is wrapped by Verify for what is no password, or one that opens nothing any more.
var ErrPassword = errors.New("not a valid password of a service")

// URL is the repository of an app that the gateway hosts. gateway is the gateway's URL.
func URL(gateway string, app events.Slug) string {
	return strings.TrimRight(gateway, "/") + "/git/" + string(app) + ".git"
}

// statement is what a Password says.
type statement struct {
	App events.Slug `json:"app"`
	At  time.Time   `json:"at"`
}

// Password lets a service read the repository of one app from at on, for Lifetime.
func Password(signer *identity.Signer, app events.Slug, at time.Time) string {
	payload, err := json.Marshal(statement{app, at.UTC()})
	if err != nil {
		panic("source: a statement is a name and a time: " + err.Error())
	}
	envelope, err := json.Marshal(signer.SignPayload(payloadType, payload))
	if err != nil {
		panic("source: an envelope is made of texts: " + err.Error())
	}
	return base64.RawURLEncoding.EncodeToString(envelope)
}

// Verify returns the service that made the password, where it opens the app's repository at that time. Errors wrap
// ErrPassword.
func Verify(trust *identity.Trust, app events.Slug, password string, at time.Time) (service string, err error) {
	envelope, err := decode(password)
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrPassword, err)
	}
	payload, service, err := trust.VerifyPayloadNew(envelope, at)
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrPassword, err)
	}
	var s statement
	if err := json.Unmarshal(payload, &s); err != nil {
		return "", fmt.Errorf("%w: %w", ErrPassword, err)
	}
	if s.App != app {
		return "", fmt.Errorf("%w: it is for another app", ErrPassword)
	}
	if age := at.Sub(s.At); age > Lifetime+skew || age < -skew {
		return "", fmt.Errorf("%w: it was made at %s and is valid for %s", ErrPassword, s.At.Format(time.RFC3339), Lifetime)
	}
	return service, nil
}

func decode(password string) (dsse.Envelope, error) {
	var envelope dsse.Envelope
	if len(password) > 4096 {
		return envelope, errors.New("it is too long")
	}
	data, err := base64.RawURLEncoding.DecodeString(password)
	if err != nil {
		return envelope, err
	}
	if err := json.Unmarshal(data, &envelope); err != nil {
		return envelope, err
	}
	if envelope.PayloadType != payloadType {
		return envelope, errors.New("it states something else")
	}
	return envelope, nil
}
