package verify

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"towpath.dev/events"
	"towpath.dev/pkg/discovery"
	"towpath.dev/pkg/engine"
	"towpath.dev/pkg/pause"
	"towpath.dev/pkg/pipeline"
	"towpath.dev/pkg/settings"
)

const (
	requestBound = 5 * time.Second // for one request of a check, at most
	dropBound    = 200 * time.Millisecond
	bodyBound    = 1 << 20  // bytes of an answer that are looked at
	outputBound  = 16 << 10 // bytes of a command's output
	logLines     = 30
	secretsPath  = settings.FilesFolder
	secretsBound = 4 << 20
	redactBound  = 20 * time.Second // for promote's answer, which asks a store
)

// checker runs the checks of one verification against the instances of one slot.
type checker struct {
	cfg       Config
	engine    *engine.Engine
	http      *http.Client
	place     discovery.Place
	instances []events.Instance
	trial     trial
	log       io.Writer
	bus       *nats.Conn
}

// health asks every instance whether it still is healthy. One that runs but does not answer is found
// within the service's health timeout.
func (c checker) health(ctx context.Context) (result, error) {
	r := result{name: "health", outcome: events.Success}
	h := c.trial.service.Health
	timeout := time.Duration(c.trial.service.HealthTimeout)
	for _, i := range c.instances {
		state, err := c.engine.Inspect(ctx, i.ID)
		if errors.Is(err, engine.ErrNotFound) {
			return c.failed(r, i.ID+" is gone"), nil
		}
		if err != nil {
			return r, err
		}
		var why string
		switch {
		case !state.Running():
			why = fmt.Sprintf("%s does not run: it is %s, exit code %d", i.ID, state.Status, state.ExitCode)
		case h.Path != "":
			why = c.get(ctx, i, pipeline.HTTPCheck{Path: h.Path}, timeout)
		case len(h.Command) > 0:
			why, err = c.exec(ctx, i, h.Command, timeout)
		case c.trial.service.Port > 0:
			why = c.connect(ctx, i, timeout)
		}
		if err != nil {
			return r, err
		}
		if why != "" {
			return c.failed(r, why), ctx.Err()
		}
	}
	return r, ctx.Err()
}

func (c checker) failed(r result, why string) result {
	r.outcome, r.why = events.Failure, why
	return r
}

// check runs one declared check. The error is technical: the check says nothing of the app.
func (c checker) check(ctx context.Context, n int, check pipeline.Check) (result, error) {
	r := result{name: check.String(), outcome: events.Success}
	if check.HTTP == nil {
		return c.command(ctx, n, check, r)
	}
	for _, i := range c.instances {
		if i.Address == "" {
			return c.failed(r, "the app has no port (service.port in towpath.yaml)"), nil
		}
		if why := c.get(ctx, i, *check.HTTP, time.Duration(check.Timeout)); why != "" {
			return c.failed(r, why), ctx.Err()
		}
	}
	return r, ctx.Err()
}

// get asks an instance until the answer is as expected, and returns why it was not when time ran out.
func (c checker) get(ctx context.Context, i events.Instance, want pipeline.HTTPCheck, timeout time.Duration) (why string) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	for {
		last := c.ask(ctx, i, want)
		if last == "" {
			return ""
		}
		if ctx.Err() == nil || why == "" {
			why = last // what the last whole try said, not that time ran out in the middle of one
		}
		if pause.For(ctx, c.cfg.Retry) != nil {
			return fmt.Sprintf("%s, for %s", why, timeout)
		}
	}
}

func (c checker) ask(ctx context.Context, i events.Instance, want pipeline.HTTPCheck) (why string) {
	ctx, cancel := context.WithTimeout(ctx, requestBound)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+i.Address+want.Path, nil)
	if err != nil {
		return fmt.Sprintf("GET %s: %v", want.Path, err)
	}
	request.Host = c.place.String() + "." + c.cfg.Domain
	request.Header.Set("User-Agent", "towpath-verify")
	response, err := c.http.Do(request)
	var slow net.Error
	switch {
	case errors.As(err, &slow) && slow.Timeout():
		return fmt.Sprintf("GET %s of %s has no answer", want.Path, i.ID)
	case err != nil:
		return fmt.Sprintf("GET %s of %s: nothing answers", want.Path, i.ID)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, bodyBound))
	switch {
	case err != nil:
		return fmt.Sprintf("GET %s of %s: the answer broke off", want.Path, i.ID)
	case want.Status == 0 && (response.StatusCode < 200 || response.StatusCode > 399):
		return fmt.Sprintf("GET %s of %s answers %d", want.Path, i.ID, response.StatusCode)
	case want.Status != 0 && response.StatusCode != want.Status:
		return fmt.Sprintf("GET %s of %s answers %d, not %d", want.Path, i.ID, response.StatusCode, want.Status)
	case !strings.Contains(string(body), want.Contains):
		return fmt.Sprintf("GET %s of %s: the answer does not contain %q", want.Path, i.ID, want.Contains)
	}
	return ""
}

// connect tells an app that listens from the engine's proxy, which takes every connection: the proxy drops
// it at once when nobody listens inside.
func (c checker) connect(ctx context.Context, i events.Instance, timeout time.Duration) (why string) {
	dialer := net.Dialer{Timeout: timeout}
	conn, err := dialer.DialContext(ctx, "tcp", i.Address)
	if err == nil {
		defer conn.Close()
		conn.SetReadDeadline(time.Now().Add(dropBound))
		_, err = conn.Read(make([]byte, 1))
		var slow net.Error
		if err == nil || errors.As(err, &slow) && slow.Timeout() {
			return ""
		}
	}
	return fmt.Sprintf("%s accepts no connection on port %d", i.ID, c.trial.service.Port)
}

func (c checker) exec(ctx context.Context, i events.Instance, command []string, timeout time.Duration) (why string, err error) {
	r, err := c.engine.Exec(ctx, i.ID, command, engine.Bounds{Timeout: timeout, Output: 1024})
	switch {
	case engine.IsUnreachable(err):
		return "", err
	case err != nil:
		return fmt.Sprintf("the health command %q cannot be run in %s", command, i.ID), nil
	case r.TimedOut:
		return fmt.Sprintf("the health command %q of %s takes longer than %s", command, i.ID, timeout), nil
	case r.ExitCode != 0:
		return fmt.Sprintf("the health command %q of %s exits with %d", command, i.ID, r.ExitCode), nil
	}
	return "", nil
}

// command runs a check's command in a container of the same image, with the settings, secrets and
// network of a running instance. Its name is its fence: a verification that is taken up again waits for
// it and does not run it twice.
func (c checker) command(ctx context.Context, n int, check pipeline.Check, r result) (result, error) {
	if len(c.instances) == 0 {
		return c.failed(r, "no instance runs"), nil
	}
	original := c.instances[0].ID
	name := fmt.Sprintf("%s-verify-%d-%d", original, c.trial.attempt, n)
	container, err := c.engine.Like(ctx, original, name, check.Command, map[string]string{"towpath.role": "verify"})
	if errors.Is(err, engine.ErrNotFound) {
		return c.failed(r, original+" is gone"), nil
	}
	if err != nil {
		return r, err
	}
	// What was issued to the replica itself waits for its next start.
	maps.DeleteFunc(container.Env, func(_, value string) bool { return strings.HasPrefix(value, settings.OwnFolder+"/") })
	secrets, err := c.secrets(ctx, original)
	if err != nil {
		return r, err
	}
	ran, err := c.engine.RunOnce(ctx, container, engine.Bounds{Timeout: time.Duration(check.Timeout), Output: outputBound})
	if err != nil {
		return r, err
	}
	output, err := c.redact(ctx, ran.Output, secrets)
	if err != nil {
		return r, err
	}
	fault, err := c.redact(ctx, ran.Error, secrets)
	if err != nil {
		return r, err
	}
	if err := c.engine.Remove(ctx, name); err != nil {
		return r, err
	}
	fmt.Fprintf(c.log, "%s\n%s\n", r.name, output)
	r.log = lastLines(output)
	switch {
	case fault != "":
		return c.failed(r, "it cannot be started: "+fault), nil
	case ran.TimedOut:
		return c.failed(r, fmt.Sprintf("it had not ended within %s", check.Timeout)), nil
	case ran.ExitCode != 0:
		return c.failed(r, fmt.Sprintf("it exits with %d", ran.ExitCode)), nil
	}
	return r, nil
}

// redact takes the app's secrets out of what it printed: those that are files of the instance, and those that it finds
// itself, which promote alone can tell.
func (c checker) redact(ctx context.Context, text string, files []settings.Secret) (string, error) {
	text = settings.Redact(text, files...)
	if d := c.trial.run.Definition; text == "" || !d.Discover || len(d.Secrets) == 0 {
		return text, nil
	}
	question, err := json.Marshal(settings.RedactRequest{Env: c.place.Env, App: c.place.App, Slot: c.trial.slot.N, Text: []byte(text)})
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, redactBound)
	defer cancel()
	var reply settings.RedactReply
	answer, err := c.bus.RequestWithContext(ctx, events.RedactSubject, question)
	if err == nil {
		err = json.Unmarshal(answer.Data, &reply)
	}
	if err == nil && reply.Error != "" {
		err = errors.New(reply.Error)
	}
	if err != nil {
		return "", fmt.Errorf("having promote take the secrets of %s out of what it printed, which is not shown before: %w", c.place, err)
	}
	return string(reply.Text), nil
}

// secrets reads those that are files out of the instance itself: this service may not read the store.
func (c checker) secrets(ctx context.Context, id string) ([]settings.Secret, error) {
	files, err := c.engine.ReadFiles(ctx, id, secretsPath, secretsBound)
	if err != nil {
		return nil, err
	}
	var all []settings.Secret
	for _, value := range files {
		all = append(all, settings.NewSecret(string(value)))
	}
	return all, nil
}

func lastLines(text string) []string {
	text = strings.TrimRight(text, "\n")
	if text == "" {
		return nil
	}
	lines := strings.Split(text, "\n")
	return lines[max(0, len(lines)-logLines):]
}
