package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"

	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
)

// What a registry may answer that a caller acts on. Every method of Client wraps one of these, or the
// context's error, or an error that the caller passed in.
var (
	// ErrNotFound: the registry has no such repository, tag, manifest or blob.
	ErrNotFound = errors.New("not in the registry")
	// ErrUnauthorised: the registry wants other credentials, or none are enough.
	ErrUnauthorised = errors.New("the registry refuses these credentials")
	// ErrUnavailable: the registry did not answer, answered 429 or 5xx, or stopped in the middle, and
	// still did so after the client's own retries. Later it may.
	ErrUnavailable = errors.New("the registry is unavailable")
	// ErrWrongDigest: the registry returned bytes that are not those which the digest names. They were
	// dropped.
	ErrWrongDigest = errors.New("the registry returned other bytes than the digest names")
	// ErrRefused: the registry refused the request for another reason, and will do so again.
	ErrRefused = errors.New("the registry refused the request")
)

// classify wraps err, which a call to the registry returned, in the sentinel that fits.
func classify(err error) error {
	if err == nil || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	for _, known := range []error{ErrNotFound, ErrUnauthorised, ErrUnavailable, ErrWrongDigest, ErrRefused} {
		if errors.Is(err, known) {
			return err
		}
	}
	var answer *transport.Error
	switch {
	case errors.As(err, &answer):
		return fmt.Errorf("%w: %w", sentinelOf(answer), err)
	case temporary(err):
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	case isWrongDigest(err):
		return fmt.Errorf("%w: %w", ErrWrongDigest, err)
	default:
		return fmt.Errorf("%w: %w", ErrRefused, err)
	}
}

func sentinelOf(answer *transport.Error) error {
	switch code := answer.StatusCode; {
	case code == http.StatusNotFound:
		return ErrNotFound
	case code == http.StatusUnauthorized, code == http.StatusForbidden:
		return ErrUnauthorised
	case code == http.StatusTooManyRequests, code == http.StatusRequestTimeout, code >= 500:
		return ErrUnavailable
	default:
		return ErrRefused
	}
}

// temporary reports whether err comes from the network rather than from an answer.
func temporary(err error) bool {
	var netError net.Error
	return errors.As(err, &netError) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) ||
		errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// isWrongDigest knows the texts of go-containerregistry's verification errors, whose types it keeps
// internal. A test holds them in place.
func isWrongDigest(err error) bool {
	text := err.Error()
	return strings.Contains(text, "does not match requested digest") || strings.Contains(text, "error verifying ")
}
