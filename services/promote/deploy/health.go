package deploy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"towpath.dev/pkg/engine"
	"towpath.dev/pkg/pause"
)

// How a replica is asked whether it is healthy.
const (
	probeFirst = 30 * time.Millisecond  // pause after the first look, half as much again each time, up to
	probeLast  = 500 * time.Millisecond // this
	probeBound = 2 * time.Second        // for one request
	execBound  = 10 * time.Second       // for one health command
	logBytes   = 8 << 10
)

// probe asks once and returns why the replica is not healthy yet, "" when it is. The error is technical.
type probe func(ctx context.Context, state engine.State) (why string, err error)

// probe returns what decides whether a replica of the version is healthy.
func (d *Deployer) probe(st *stage) probe {
	s := st.spec
	switch {
	case s.HealthPath != "":
		return d.askPath(s)
	case len(s.HealthCommand) > 0:
		return askCommand(st)
	case st.image.HasHealth:
		return func(_ context.Context, state engine.State) (string, error) {
			if state.Health == "healthy" {
				return "", nil
			}
			return "the image's own HEALTHCHECK says " + state.Health, nil
		}
	case s.Port > 0:
		return askPort(s)
	}
	return func(_ context.Context, state engine.State) (string, error) {
		if up := time.Since(state.Started); up < d.cfg.Settle {
			return fmt.Sprintf("it has run for %s only", up.Round(time.Millisecond)), nil
		}
		return "", nil
	}
}

func (d *Deployer) askPath(s Spec) probe {
	client := &http.Client{
		Timeout: probeBound, Transport: &http.Transport{DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return func(ctx context.Context, state engine.State) (string, error) {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+state.Addresses[s.Port]+s.HealthPath, nil)
		if err != nil {
			return "", fmt.Errorf("health path %q: %w", s.HealthPath, err)
		}
		request.Host = s.Place.String() + "." + d.cfg.Domain
		request.Header.Set("User-Agent", "towpath-promote")
		response, err := client.Do(request)
		var slow net.Error
		switch {
		case errors.As(err, &slow) && slow.Timeout():
			return fmt.Sprintf("GET %s has no answer within %s", s.HealthPath, probeBound), nil
		case err != nil:
			// The engine's proxy takes every connection and drops it when nobody listens inside.
			return fmt.Sprintf("nothing answers on port %d", s.Port), nil
		}
		defer response.Body.Close()
		io.Copy(io.Discard, io.LimitReader(response.Body, 64<<10))
		if response.StatusCode < 200 || response.StatusCode > 399 {
			return fmt.Sprintf("GET %s answers %s", s.HealthPath, response.Status), nil
		}
		return "", nil
	}
}

func askCommand(st *stage) probe {
	command := st.spec.HealthCommand
	return func(ctx context.Context, state engine.State) (string, error) {
		r, err := st.engine.Exec(ctx, state.ID, command, engine.Bounds{Timeout: execBound, Output: 1024})
		switch {
		case engine.IsUnreachable(err) || ctx.Err() != nil:
			return "", err
		case err != nil: // the container ended meanwhile, or the command is not there
			return st.spec.redact(fmt.Sprintf("its health command %q cannot be run: %v", command, errors.Unwrap(err))), nil
		case r.TimedOut:
			return fmt.Sprintf("its health command %q takes longer than %s", command, execBound), nil
		case r.ExitCode != 0:
			said := lines(st.spec.redact(r.Output))
			return strings.TrimSuffix(fmt.Sprintf("its health command %q exits with %d: %s", command, r.ExitCode, strings.Join(said, " ")), ": "), nil
		}
		return "", nil
	}
}

// askPort tells an app that listens from the engine's proxy, which takes every connection: the proxy drops
// it at once when nobody listens inside.
func askPort(s Spec) probe {
	return func(ctx context.Context, state engine.State) (string, error) {
		why := fmt.Sprintf("nothing accepts a connection on port %d", s.Port)
		dialer := net.Dialer{Timeout: probeBound}
		conn, err := dialer.DialContext(ctx, "tcp", state.Addresses[s.Port])
		if err != nil {
			return why, nil
		}
		defer conn.Close()
		conn.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
		_, err = conn.Read(make([]byte, 1))
		var slow net.Error
		if err == nil || errors.As(err, &slow) && slow.Timeout() {
			return "", nil
		}
		return why, nil
	}
}

// await returns the state of a container once it is healthy. One that ends, or is not healthy in time since it was started,
// by whichever process, is an *UnhealthyError. It is asked at least once.
func (d *Deployer) await(ctx context.Context, st *stage, id, name string) (engine.State, error) {
	ask := d.probe(st)
	var deadline time.Time
	why, restarts := "", -1
	for wait := probeFirst; ; wait = min(wait*3/2, probeLast) {
		state, err := st.engine.Inspect(ctx, id)
		switch {
		case errors.Is(err, engine.ErrNotFound):
			return state, fmt.Errorf("container %s was removed by somebody else while it was starting; try again: %w", name, err)
		case err != nil:
			return state, err
		case !state.Running() || restarts >= 0 && state.Restarts > restarts:
			return state, d.exited(ctx, st, state)
		}
		if restarts < 0 {
			deadline = time.Now().Add(st.spec.HealthTimeout - st.age(state))
		}
		restarts = state.Restarts
		if why, err = ask(ctx, state); err != nil || why == "" {
			return state, err
		}
		if time.Now().After(deadline) {
			return state, d.notHealthy(ctx, st, state, why)
		}
		if err := pause.For(ctx, wait); err != nil {
			return state, err
		}
	}
}

func (d *Deployer) exited(ctx context.Context, st *stage, state engine.State) error {
	why := fmt.Sprintf("it exited with code %d after %s", state.ExitCode, state.Finished.Sub(state.Started).Round(time.Millisecond))
	do := "look at its last lines, fix and push"
	switch {
	case state.OOM:
		why, do = why+", killed for want of memory", "let it use less memory, or give it more"
	case state.Error != "":
		why += " (" + state.Error + ")"
	}
	return &UnhealthyError{Reason: Exited, On: state.Name, Why: why, Do: do, Log: d.log(ctx, st, state.ID)}
}

func (d *Deployer) notHealthy(ctx context.Context, st *stage, state engine.State, why string) error {
	s := st.spec
	e := &UnhealthyError{
		Reason: NotHealthy, On: state.Name, Log: d.log(ctx, st, state.ID),
		Why: fmt.Sprintf("it was not healthy within %s: %s", s.HealthTimeout, why), Do: "fix and push",
	}
	if s.Port == 0 {
		return e
	}
	if open, known := listening(state); known && !open.anywhere(s.Port) {
		e.Reason = WrongPort
		e.Why, e.Do = open.explain(s.Port)
	} else if !known && len(st.image.Ports) > 0 && !contains(st.image.Ports, s.Port) {
		e.Why += fmt.Sprintf("; its image declares port %s", numbers(st.image.Ports))
		e.Do = "check service.port in towpath.yaml"
	}
	return e
}

// notStarted tells a command that cannot be run from an engine that could not run it.
func (d *Deployer) notStarted(ctx context.Context, st *stage, id, name string, cause error) error {
	state, err := st.engine.Inspect(ctx, id)
	if err != nil {
		return cause
	}
	text := state.Error + cause.Error()
	theirs := state.ExitCode == 126 || state.ExitCode == 127
	for _, fault := range []string{"unable to find user", "unable to find group", "no matching entries in passwd", "exec format error"} {
		theirs = theirs || strings.Contains(text, fault)
	}
	if !theirs {
		return cause
	}
	e := &UnhealthyError{Reason: NotStartable, On: name, Why: st.spec.redact(state.Error), Do: "correct ENTRYPOINT, CMD or USER in the Dockerfile and push"}
	if strings.Contains(text, "exec format error") {
		e.Reason, e.Do = NoPlatform, "build the program for the engine's platform"
	}
	return e
}

// log returns the last lines of a container, redacted; what cannot be read is left out.
func (d *Deployer) log(ctx context.Context, st *stage, id string) []string {
	text, err := st.engine.LogTail(ctx, id, logLines, logBytes)
	if err != nil {
		d.deps.Logger.Warn("the app's output cannot be read", "container", id, "err", err)
	}
	return lines(st.spec.redact(text))
}
