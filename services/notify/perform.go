package notify

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"towpath.dev/events"
	"towpath.dev/pkg/policy"
)

// refusedError is a receiver's answer that trying again will not change.
type refusedError struct{ status int }

func (e *refusedError) Error() string { return fmt.Sprintf("it answers %d", e.status) }

// busyError is a receiver's wish to be left alone for a while.
type busyError struct {
	status int
	after  time.Duration
}

func (e *busyError) Error() string { return fmt.Sprintf("it answers %d", e.status) }

// errAddress is wrapped where there is no usable address. It never holds the address, which is a secret.
var errAddress = errors.New("the receiver's address cannot be used")

const (
	maxAddress    = 4 << 10 // bytes of a file with an address
	maxRetryAfter = 5 * time.Minute
)

// address reads where a receiver is, each time anew, so that a secret can be changed without a restart.
func address(r policy.Receiver) (string, error) {
	text := r.URL
	if r.URLFile != "" {
		file, err := os.Open(r.URLFile)
		if err != nil {
			return "", fmt.Errorf("%w: %w", errAddress, err)
		}
		defer file.Close()
		data, err := io.ReadAll(io.LimitReader(file, maxAddress))
		if err != nil {
			return "", fmt.Errorf("%w: %w", errAddress, err)
		}
		text = strings.TrimSpace(string(data))
	}
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" {
		return "", fmt.Errorf("%w: it is not https://host/path (%s)", errAddress, source(r))
	}
	return text, nil
}

func source(r policy.Receiver) string {
	if r.URLFile != "" {
		return r.URLFile
	}
	return "url in the platform file"
}

// post sends a notice to a receiver. Its errors never hold the address.
func (s *Service) post(ctx context.Context, r policy.Receiver, n notice) error {
	to, err := address(r)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, to, bytes.NewReader(body(n, s.link(ctx, n))))
	if err != nil {
		return errAddress
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("User-Agent", "towpath-notify")
	request.Header.Set(HeaderID, string(n.ID))
	request.Header.Set(HeaderKind, n.Kind)
	request.Header.Set(HeaderAct, n.Command)
	if n.Run > 0 {
		request.Header.Set(HeaderRun, fmt.Sprintf("%s/%d", n.App, n.Run))
	}
	if n.Env != "" {
		request.Header.Set(HeaderEnv, string(n.Env))
	}
	response, err := s.http.Do(request)
	var named *url.Error
	if errors.As(err, &named) {
		return fmt.Errorf("it does not answer: %w", named.Err)
	}
	if err != nil {
		return err
	}
	io.Copy(io.Discard, io.LimitReader(response.Body, 64<<10)) // so that the connection can be used again
	response.Body.Close()
	switch status := response.StatusCode; {
	case status < 300:
		return nil
	case status == http.StatusTooManyRequests || status == http.StatusServiceUnavailable:
		return &busyError{status, retryAfter(response.Header.Get("Retry-After"))}
	case status >= 500 || status == http.StatusRequestTimeout || status == http.StatusTooEarly:
		return fmt.Errorf("it answers %d", status)
	default:
		return &refusedError{status}
	}
}

// retryAfter reads a number of seconds, within bounds.
func retryAfter(text string) time.Duration {
	seconds, err := strconv.Atoi(text)
	if err != nil || seconds < 0 {
		return 0
	}
	return min(time.Duration(seconds)*time.Second, maxRetryAfter)
}

// newClient posts to where it is told and nowhere else: a receiver that sends it on is misconfigured.
func newClient() *http.Client {
	return &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// linkBound is how long the gateway may take to name a page. Without it the notification goes out with its command alone.
const linkBound = 2 * time.Second

// link is the address of a run's page, or empty.
func (s *Service) link(ctx context.Context, n notice) string {
	if n.Run == 0 {
		return ""
	}
	question, err := json.Marshal(events.LinkRequest{App: n.App, Run: n.Run})
	if err != nil {
		return ""
	}
	ctx, cancel := context.WithTimeout(ctx, linkBound)
	defer cancel()
	reply, err := s.rt.Ledger.Conn().RequestWithContext(ctx, events.LinkSubject, question)
	if err != nil {
		s.rt.Logger.Debug("a notification goes out without a link", "run", n.Run, "err", err)
		return ""
	}
	return string(reply.Data)
}
