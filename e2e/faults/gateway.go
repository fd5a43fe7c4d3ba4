package faults

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"towpath.dev/e2e/system"
)

// away is how long the gateway is given to come back while it is killed again and again, besides the time that the bus is away.
const away = 2 * time.Minute

// gateway is the way in, as a CI and a developer use it: they try again until they are answered.
type gateway struct {
	url, token, git string
	client          http.Client
	away            time.Duration // how long it is tried again
}

func openGateway(s *system.System, outage time.Duration) *gateway {
	v := s.Variables()
	return &gateway{url: v["TOWPATH_URL"], token: v["TOWPATH_TOKEN"], git: v["GIT"], client: http.Client{Timeout: 20 * time.Second}, away: away + outage}
}

// again is the pause between two tries.
const again = 100 * time.Millisecond

// keepTrying calls f until it returns nil or it was away for too long.
func (g *gateway) keepTrying(ctx context.Context, what string, f func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, g.away)
	defer cancel()
	for {
		err := f(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: %w", what, err)
		case <-time.After(again):
		}
	}
}

// call sends one request; any status that is not 2xx is an error.
func (g *gateway) call(ctx context.Context, method, path string, body, answer any) error {
	text, err := json.Marshal(body)
	if err != nil {
		return err
	}
	request, err := http.NewRequestWithContext(ctx, method, g.url+path, bytes.NewReader(text))
	if err != nil {
		return err
	}
	request.Header.Set("Authorization", "Bearer "+g.token)
	request.Header.Set("Content-Type", "application/json")
	response, err := g.client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	reply, err := io.ReadAll(io.LimitReader(response.Body, 1<<20))
	if err != nil {
		return err
	}
	if response.StatusCode/100 != 2 {
		return fmt.Errorf("%s %s: %s: %.300s", method, path, response.Status, reply)
	}
	return json.Unmarshal(reply, answer)
}

// submit hands over an image and returns the number of its run.
func (g *gateway) submit(ctx context.Context, app, image, definition string) (int, error) {
	var answer struct {
		Run string `json:"run"`
	}
	err := g.keepTrying(ctx, "submitting an image of "+app, func(ctx context.Context) error {
		return g.call(ctx, http.MethodPost, "/v1/submit", map[string]string{"app": app, "image": image, "definition": definition}, &answer)
	})
	if err != nil {
		return 0, err
	}
	_, number, _ := strings.Cut(answer.Run, "/")
	return strconv.Atoi(number)
}

// view is a run as the gateway shows it.
type view struct {
	Status, Detail string
	Stages         []struct{ Stage, Env, Status, Detail string }
}

// stuck is the stage at which the run is stuck, and why.
func (v view) stuck() (stage, env, why string, found bool) {
	for _, s := range v.Stages {
		if s.Status == "stuck" {
			return s.Stage, s.Env, s.Detail, true
		}
	}
	return "", "", "", false
}

// replay does what an operator does about a stage that is stuck.
func (g *gateway) replay(ctx context.Context, app string, run int, stage, env string) error {
	id := fmt.Sprintf("%s-%d-%s-%s-%d", app, run, stage, env, time.Now().UnixNano()) // one id: sent again it is one command
	command := map[string]any{"id": id, "verb": "replay", "app": app, "run": run, "stage": stage, "env": env, "reason": "its workers were killed"}
	return g.keepTrying(ctx, "replaying "+app, func(ctx context.Context) error {
		return g.call(ctx, http.MethodPost, "/v1/commands", command, new(any))
	})
}

// ended waits until a run has come to an end, and returns it.
func (g *gateway) ended(ctx context.Context, app string, run int, bound time.Duration) (view, error) {
	ctx, cancel := context.WithTimeout(ctx, bound)
	defer cancel()
	seen := "nothing"
	for {
		var answer view
		err := g.call(ctx, http.MethodGet, fmt.Sprintf("/v1/apps/%s/runs/%d", app, run), nil, &answer)
		switch answer.Status {
		case "stuck", "failed", "refused", "superseded", "cancelled", "done":
			return answer, nil
		case "":
		default:
			seen = answer.Status + " " + answer.Detail
		}
		select {
		case <-ctx.Done():
			return view{}, fmt.Errorf("%s/%d has not ended within %s: last seen %s (%v)", app, run, bound, seen, err)
		case <-time.After(again):
		}
	}
}

// repository is the git repository of an app whose changes are pushed.
type repository struct {
	gateway     *gateway
	folder, url string
	changes     int
}

// openRepository makes one that holds a program.
func (g *gateway) openRepository(ctx context.Context, folder, app, program string) (*repository, error) {
	r := &repository{gateway: g, folder: folder, url: g.git + "/" + app + ".git"}
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return nil, err
	}
	binary, err := os.ReadFile(program)
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(folder, "sample"), binary, 0o755); err != nil {
		return nil, err
	}
	return r, r.run(ctx, "init", "-q", "-b", "main")
}

func (r *repository) run(ctx context.Context, args ...string) error {
	command := exec.CommandContext(ctx, "git", append([]string{"-C", r.folder, "-c", "user.name=Ada", "-c", "user.email=ada@example.org"}, args...)...)
	command.Env = append(os.Environ(), "GIT_TERMINAL_PROMPT=0", "GIT_CONFIG_NOSYSTEM=1")
	if out, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("git %s: %w\n%s", args[0], err, out)
	}
	return nil
}

// push commits a change and pushes it until the gateway has taken it. It returns how many were pushed.
func (r *repository) push(ctx context.Context, b behaviour, definition string) (int, error) {
	r.changes++
	mode := "serve"
	if b == sick {
		mode = "sick"
	}
	for name, text := range map[string]string{
		"Dockerfile":   fmt.Sprintf("FROM scratch\nCOPY sample version /\nENTRYPOINT [\"/sample\", %q]\n", mode),
		"version":      fmt.Sprintf("%d\n", r.changes),
		"towpath.yaml": definition,
	} {
		if err := os.WriteFile(filepath.Join(r.folder, name), []byte(text), 0o644); err != nil {
			return 0, err
		}
	}
	if err := r.run(ctx, "add", "-A"); err != nil {
		return 0, err
	}
	if err := r.run(ctx, "commit", "-q", "-m", fmt.Sprintf("change %d", r.changes)); err != nil {
		return 0, err
	}
	return r.changes, r.gateway.keepTrying(ctx, "pushing to "+r.url, func(ctx context.Context) error { return r.run(ctx, "push", "-q", r.url, "main") })
}
