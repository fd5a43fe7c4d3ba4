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
	var wrong error
	err := s.eachLine(ctx, query, func(line []byte) bool {
		event := Event{Line: string(line)}
		if err := json.Unmarshal(line, &event); err != nil {
			wrong = fmt.Errorf("reading events: %w: %.200s", err, line)
			return false
		}
		return each(event)
	})
	return errors.Join(wrong, err)
}

// eachLine hands the lines that the API answers a query of events with to each, until that returns false.
func (s *System) eachLine(ctx context.Context, query url.Values, each func(line []byte) bool) error {
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
		if !each(lines.Bytes()) {
			return nil
		}
	}
	return lines.Err()
}

var oracle = sync.OnceValues(conformance.New)

// Conformance judges every event that the system has written: by CDEvents' schemas, and by what becomes of it in the
// official SDK. A system that does not answer cannot be judged, which is an error: it has to run when it is asked.
func (s *System) Conformance(ctx context.Context) error {
	list, err := s.Events(ctx, "")
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
		if err := errors.Join(judge.Check(event.Body), conformance.RoundTrip(event.Body)); err != nil && !seen[event.Type] {
			seen[event.Type] = true
			faults = append(faults, fmt.Errorf("%d %s: %w\n%s", event.Seq, event.Subject, err, event.Body))
		}
	}
	return errors.Join(append(faults, s.formsConform(ctx, judge, list))...)
}

// formsConform judges what `towpath events --json` and `--cloudevents` print: the same events, each a line, the first
// as valid CDEvents, the second as CloudEvents whose attributes mirror what is in them.
func (s *System) formsConform(ctx context.Context, judge *conformance.Oracle, list []Event) error {
	var faults []error
	at := map[string]int{}
	check := func(as string, body func(line []byte) (json.RawMessage, error)) func([]byte) bool {
		return func(line []byte) bool {
			i := at[as]
			at[as]++
			if i >= len(list) { // written since
				return false
			}
			data, err := body(line)
			if err == nil {
				err = judge.Check(data)
			}
			if err == nil && string(data) != string(list[i].Body) {
				err = fmt.Errorf("it is not the one that is stored as %d", list[i].Seq)
			}
			if err != nil {
				faults = append(faults, fmt.Errorf("as %s: %w: %s", as, err, line))
			}
			return err == nil
		}
	}
	plain := func(line []byte) (json.RawMessage, error) { return line, nil }
	for as, body := range map[string]func([]byte) (json.RawMessage, error){"cdevents": plain, "cloudevents": conformance.CloudEvent} {
		if err := s.eachLine(ctx, url.Values{"as": {as}}, check(as, body)); err != nil {
			return err
		}
		if at[as] < len(list) {
			faults = append(faults, fmt.Errorf("as %s: %d events of %d", as, at[as], len(list)))
		}
	}
	return errors.Join(faults...)
}
