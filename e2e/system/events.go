package system

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"sync"

	"towpath.dev/e2e/conformance"
)

// Event is one event of the ledger, as the HTTP API gives it.
type Event struct {
	Seq     uint64          `json:"seq"`
	Subject string          `json:"subject"`
	Type    string          `json:"type"`
	Body    json.RawMessage `json:"event"`
	Line    string          `json:"-"` // the whole line
}

// Events lists an app's events; with an empty app, all.
func (s *System) Events(ctx context.Context, app string) ([]Event, error) {
	var list []Event
	err := s.eachEvent(ctx, app, false, func(e Event) bool {
		list = append(list, e)
		return true
	})
	return list, err
}

// Await waits until an event of the app matches: the whole line, as `towpath events --json` prints it.
func (s *System) Await(ctx context.Context, app string, pattern *regexp.Regexp) error {
	found := errors.New("found")
	var err error
	if e := s.eachEvent(ctx, app, true, func(e Event) bool {
		if pattern.MatchString(e.Line) {
			err = found
		}
		return err == nil
	}); e != nil {
		return e
	}
	if err != found {
		return fmt.Errorf("no event of %s matches %s", app, pattern)
	}
	return nil
}

func (s *System) eachEvent(ctx context.Context, app string, follow bool, each func(Event) bool) error {
	query := url.Values{}
	if app != "" {
		query.Set("app", app)
	}
	if follow {
		query.Set("follow", "1")
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.gateway+"/v1/events?"+query.Encode(), nil)
	if err != nil {
		return err
	}
	request.Header.Set("Authorization", "Bearer "+s.token)
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return fmt.Errorf("reading events: %w", err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("reading events: %s", response.Status)
	}
	lines := bufio.NewScanner(response.Body)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var event Event
		if err := json.Unmarshal(lines.Bytes(), &event); err != nil {
			return fmt.Errorf("reading events: %w: %.200s", err, lines.Text())
		}
		event.Line = lines.Text()
		if !each(event) {
			return nil
		}
	}
	return lines.Err()
}

var oracle = sync.OnceValues(conformance.New)

// Conformance judges every event that the system has written. Where it no longer answers there is nothing to
// judge: scenarios that end with it down have said so.
func (s *System) Conformance(ctx context.Context) error {
	list, err := s.Events(ctx, "")
	var gone *url.Error
	if errors.As(err, &gone) {
		return nil
	}
	if err != nil {
		return err
	}
	judge, err := oracle()
	if err != nil {
		return err
	}
	if len(list) == 0 {
		return errors.New("no events at all")
	}
	var faults []error
	seen := map[string]bool{}
	for _, event := range list {
		if err := judge.Check(event.Body); err != nil && !seen[event.Type] {
			seen[event.Type] = true
			faults = append(faults, fmt.Errorf("%d %s: %w\n%s", event.Seq, event.Subject, err, event.Body))
		}
	}
	return errors.Join(faults...)
}
