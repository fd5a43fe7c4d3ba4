package engine

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/pkg/stdcopy"

	"towpath.dev/pkg/pause"
)

// Result is how a command ended.
type Result struct {
	ExitCode  int
	Output    string // the end of standard output and error together
	Truncated bool   // there was more output than was asked for
	TimedOut  bool   // it was killed at its deadline
	Adopted   bool   // it had been started before: this call only waited
	// Error is why it could not be started at all ("no such file or directory"); ExitCode is 126 or 127.
	Error    string
	Started  time.Time
	Finished time.Time
}

// Bounds limit a command.
type Bounds struct {
	Timeout time.Duration // from its start, also when an earlier call started it
	Output  int           // bytes
}

// outputLines is how many lines are read back at most, before Bounds.Output cuts them.
const outputLines = 5000

// RunOnce runs a command in a container of its own and waits for it. The container's name is the fence:
// where one with that name exists, whoever made it, this call waits for it and returns its result, and
// never runs the command again. So the container is left behind; Remove takes it away when its result is
// no longer needed. An error that is not about the command itself (the engine, ctx) leaves the command
// running, to be found by the next call.
//
// A command that could not be started is a Result with Error. The error wraps ErrNotFound where image or
// network are missing, ErrNoSource where a mount's folder is.
func (e *Engine) RunOnce(ctx context.Context, c Container, b Bounds) (Result, error) {
	begun := time.Now()
	id, err := e.Create(ctx, c)
	found := errors.Is(err, ErrNameTaken)
	if err != nil && !found {
		return Result{}, err
	}
	if found {
		id = c.Name
	}
	// Only what was never started may be: starting what has ended would run it twice.
	mine := !found && time.Since(begun) < turn/2
	if !mine {
		if mine, err = e.claimStart(ctx, c); err != nil {
			return Result{}, err
		}
	}
	if mine {
		if err := e.Start(ctx, id); err != nil {
			return e.notStarted(ctx, id, found, err)
		}
	}
	return e.finish(ctx, id, !mine, b)
}

// turn is how long a container that was not started yet is left to whoever may start it, before they are
// taken for dead.
const turn = 2 * time.Second

// claimStart returns whether this caller is the one to start a container that another call has made. First
// it is its maker's turn. Then it is the turn of the first to make a container whose name says so, and of
// nobody else for as long. Such containers are never started, and carry the labels of the one that they
// are about.
func (e *Engine) claimStart(ctx context.Context, c Container) (bool, error) {
	claim := Container{Image: c.Image, Labels: c.Labels, Command: c.Command}
	for n := 1; ; n++ {
		for end := time.Now().Add(turn); time.Now().Before(end); {
			s, err := e.Inspect(ctx, c.Name)
			if err != nil {
				return false, err
			}
			if s.Status != "created" || s.ExitCode != 0 && !s.cancelled() {
				return false, nil
			}
			if err := pause.For(ctx, 50*time.Millisecond); err != nil {
				return false, err
			}
		}
		claim.Name = fmt.Sprintf("%s-start-%d", c.Name, n)
		if _, err := e.Create(ctx, claim); err == nil || !errors.Is(err, ErrNameTaken) {
			return err == nil, err
		}
	}
}

// cancelled reports whether the engine gave a start up because whoever asked for it went away. Engine 23 and newer do so,
// and only before they have the runtime start the command, which they do whoever has gone: it did not run, and may be
// started as if nobody had tried.
func (s State) cancelled() bool {
	return s.Status == "created" && s.Started.IsZero() && strings.HasSuffix(s.Error, context.Canceled.Error())
}

// finish waits for a command that was started and gathers its result.
func (e *Engine) finish(ctx context.Context, id string, adopted bool, b Bounds) (Result, error) {
	s, timedOut, err := e.await(ctx, id, b.Timeout)
	if err != nil {
		return Result{}, err
	}
	r := Result{ExitCode: s.ExitCode, TimedOut: timedOut, Adopted: adopted, Error: s.Error, Started: s.Started, Finished: s.Finished}
	r.Output, r.Truncated, err = e.logs(ctx, s.ID, outputLines, b.Output)
	return r, err
}

// notStarted tells a command that cannot be run from an engine that could not run it.
func (e *Engine) notStarted(ctx context.Context, id string, adopted bool, cause error) (Result, error) {
	s, err := e.Inspect(ctx, id)
	if err != nil {
		return Result{}, errors.Join(cause, err)
	}
	if s.ExitCode != 126 && s.ExitCode != 127 {
		return Result{}, cause
	}
	return Result{ExitCode: s.ExitCode, Error: s.Error, Adopted: adopted}, nil
}

// await waits until the container has ended, and kills it when timeout has passed since its start.
func (e *Engine) await(ctx context.Context, id string, timeout time.Duration) (s State, timedOut bool, err error) {
	if s, err = e.Inspect(ctx, id); err != nil {
		return s, false, err
	}
	left := max(0, time.Until(s.Started.Add(timeout)))
	if s.Running() || s.Status == "paused" || s.Status == "restarting" {
		err = e.do(ctx, left, "waiting for container "+id, func(ctx context.Context) error {
			ended, failed := e.api.ContainerWait(ctx, id, container.WaitConditionNotRunning)
			select {
			case <-ended:
				return nil
			case err := <-failed:
				return err
			}
		})
		if err != nil && ctx.Err() == nil && errors.Is(err, context.DeadlineExceeded) {
			timedOut, err = true, e.Kill(ctx, id)
		}
		if err != nil {
			return s, timedOut, err
		}
	}
	for {
		// The engine answers "exited" a moment after the process is gone.
		if s, err = e.Inspect(ctx, id); err != nil || !s.Running() {
			return s, timedOut, err
		}
		if err := pause.For(ctx, 20*time.Millisecond); err != nil {
			return s, timedOut, err
		}
	}
}

// Like returns the definition of a container that runs the same image with the same environment
// variables, mounts and network as the one that exists under id, but no published port: what a check of
// a running service needs, its secrets included, without being told them. Name, Command and Labels are
// the caller's; labels are added to those of the original.
func (e *Engine) Like(ctx context.Context, id, name string, command []string, labels map[string]string) (Container, error) {
	i, err := e.inspect(ctx, id)
	if err != nil {
		return Container{}, err
	}
	c := Container{
		Name: name, Image: i.Image, Command: command, Env: map[string]string{},
		Labels: maps.Clone(i.Config.Labels), Network: string(i.HostConfig.NetworkMode),
	}
	if c.Labels == nil {
		c.Labels = map[string]string{}
	}
	maps.Copy(c.Labels, labels)
	for _, pair := range i.Config.Env {
		key, value, _ := strings.Cut(pair, "=")
		c.Env[key] = value
	}
	for _, m := range i.HostConfig.Mounts {
		like := Mount{Target: m.Target, Writable: !m.ReadOnly}
		if m.Type == "volume" {
			like.Volume = m.Source
		} else {
			like.Folder = m.Source
		}
		c.Mounts = append(c.Mounts, like)
	}
	return c, nil
}

// Exec runs a command inside a running container and waits for it. At its deadline the result says
// TimedOut; the engine offers no way to end the command then, so it may still run.
func (e *Engine) Exec(ctx context.Context, id string, command []string, b Bounds) (Result, error) {
	limited, cancel := context.WithTimeout(ctx, b.Timeout)
	defer cancel()
	r := Result{Started: time.Now()}
	doing := fmt.Sprintf("running %q in container %s", command, id)
	created, err := e.api.ContainerExecCreate(limited, id, container.ExecOptions{Cmd: command, AttachStdout: true, AttachStderr: true})
	if err != nil {
		return r, e.fault(ctx, b.Timeout, doing, err)
	}
	attached, err := e.api.ContainerExecAttach(limited, created.ID, container.ExecAttachOptions{})
	if err != nil {
		return r, e.fault(ctx, b.Timeout, doing, err)
	}
	stop := context.AfterFunc(limited, attached.Close)
	defer stop()
	defer attached.Close()
	out := &tail{limit: b.Output}
	_, err = stdcopy.StdCopy(out, out, attached.Reader)
	r.Output, r.Truncated = out.text()
	r.Finished = time.Now()
	if ctx.Err() != nil {
		return r, fmt.Errorf("%s: %w", doing, context.Cause(ctx))
	}
	if limited.Err() != nil {
		r.TimedOut = true
		return r, nil
	}
	if err != nil {
		return r, e.fault(ctx, b.Timeout, doing, err)
	}
	ended, err := e.api.ContainerExecInspect(limited, created.ID)
	r.ExitCode = ended.ExitCode
	return r, e.fault(ctx, b.Timeout, doing, err)
}
