package demo

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"towpath.dev/pkg/engine"
	"towpath.dev/services/gateway/view"
	"towpath.dev/services/towpath/client"
)

// Labels that Towpath gives what it creates on an Engine.
const (
	labelInstall = "towpath.install"
	labelApp     = "towpath.app"
	labelEnv     = "towpath.env"
	labelRun     = "towpath.run"
)

// expect is an error where got is not want.
func expect[T comparable](what string, got, want T) error {
	if got == want {
		return nil
	}
	return fmt.Errorf("%s is %v, not %v", what, got, want)
}

// hints is an error where a run does not tell people to do this.
func hints(r view.Run, do string) error {
	said := []string{r.Detail, r.Command}
	for _, s := range r.Stages {
		said = append(said, s.Detail, s.Command)
	}
	if strings.Contains(strings.Join(said, "\n"), do) {
		return nil
	}
	return fmt.Errorf("%s does not say %q, but %q", r.Run, do, said)
}

// deployment is what Towpath says runs of the app in an environment.
func (d *demo) deployment(ctx context.Context, env string) (view.Deployment, error) {
	list, err := d.api.Environment(ctx, env)
	if err != nil {
		return view.Deployment{}, err
	}
	for _, x := range list {
		if x.App == app && len(x.Endpoints) > 0 {
			return x, nil
		}
	}
	return view.Deployment{}, fmt.Errorf("%s is not in %s", app, env)
}

// runsIn is an error unless an environment says that it runs this run, by its digest.
func (d *demo) runsIn(ctx context.Context, env string, run view.Run) error {
	x, err := d.deployment(ctx, env)
	if err == nil {
		err = expect("digest in "+env, x.Digest, run.Digest)
	}
	return err
}

// words is what the app answers in an environment, with the address at which it does.
func (d *demo) words(ctx context.Context, env string) string {
	x, err := d.deployment(ctx, env)
	if err != nil {
		return env + ": " + err.Error()
	}
	body, err := get(ctx, x.Endpoints[0])
	if err != nil {
		return env + ": " + err.Error()
	}
	return fmt.Sprintf("%s says %s", x.Endpoints[0], body)
}

// answers is an error unless a request through the edge gets exactly this answer.
func (d *demo) answers(ctx context.Context, env, want string) error {
	x, err := d.deployment(ctx, env)
	if err != nil {
		return err
	}
	body, err := get(ctx, x.Endpoints[0])
	if err != nil {
		return err
	}
	return expect("the answer of "+x.Endpoints[0], body, want)
}

// get asks an address whose host ends in .localhost, which not every resolver knows to be this machine.
func get(ctx context.Context, address string) (body string, err error) {
	u, err := url.Parse(address)
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return "", err
	}
	dialer := net.Dialer{}
	transport := &http.Transport{DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return dialer.DialContext(ctx, network, net.JoinHostPort("127.0.0.1", u.Port()))
	}}
	defer transport.CloseIdleConnections()
	response, err := (&http.Client{Transport: transport}).Do(request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(io.LimitReader(response.Body, 1<<10))
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s answers %s", address, response.Status)
	}
	return strings.TrimSpace(string(text)), err
}

// retired is how long the version before may go on after the new one was verified: it finishes what it
// was asked.
const retired = 30 * time.Second

// sameImage is an error unless the Engine itself says that every container of every environment runs
// the run's image, by digest, that there are some, and that no other is left.
func (d *demo) sameImage(ctx context.Context, run view.Run) error {
	image, err := d.engine.Image(ctx, d.system.registry+"/"+app+"@"+run.Digest)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, retired)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		err := d.onlyImage(ctx, image.ID)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-tick.C:
		}
	}
}

func (d *demo) onlyImage(ctx context.Context, id string) error {
	for _, env := range envs {
		containers, err := d.containers(ctx, map[string]string{labelEnv: env})
		if err != nil {
			return err
		}
		running := 0
		for _, c := range containers {
			if c.Running() {
				running++
			}
			if c.Image != id {
				return fmt.Errorf("container %s is of image %s, not %s", c.Name, c.Image, id)
			}
		}
		if running == 0 {
			return fmt.Errorf("no container of %s runs in %s", app, env)
		}
	}
	return nil
}

// containers are those of this demo that carry the labels too, running or not.
func (d *demo) containers(ctx context.Context, labels map[string]string) ([]engine.State, error) {
	all := map[string]string{labelInstall: d.system.install, labelApp: app}
	for name, value := range labels {
		all[name] = value
	}
	return d.engine.List(ctx, all)
}

// neverIn is an error if anything of a run was ever begun in an environment.
func (d *demo) neverIn(ctx context.Context, env string, run view.Run) error {
	containers, err := d.containers(ctx, map[string]string{labelEnv: env, labelRun: run.Run})
	if err != nil {
		return err
	}
	if len(containers) > 0 {
		return fmt.Errorf("container %s of %s is in %s", containers[0].Name, run.Run, env)
	}
	taken := 0
	err = d.api.Events(ctx, client.EventQuery{App: app, Run: run.Number, Type: "slot.taken"}, func(e view.EventLine) error {
		if strings.Contains(e.Subject, "."+env+".") {
			taken++
		}
		return nil
	})
	if err == nil {
		err = expect("slots of "+env+" that "+run.Run+" took", taken, 0)
	}
	return err
}

// builtOnce is an error unless the ledger holds exactly one build of a run.
func (d *demo) builtOnce(ctx context.Context, number int) error {
	builds := 0
	err := d.api.Events(ctx, client.EventQuery{App: app, Run: number, Type: "build.started"}, func(view.EventLine) error {
		builds++
		return nil
	})
	if err == nil {
		err = expect("builds of "+app+"/"+fmt.Sprint(number), builds, 1)
	}
	return err
}
