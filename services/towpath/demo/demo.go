// Package demo carries a sample app from git push to production in front of somebody's eyes, breaks it
// twice on purpose, and shows that each break stays where it belongs.
//
// It uses what a user has: git, the `towpath` commands and the edge. Every claim that it prints was
// checked with a request through the edge, with the Docker Engine's own words or in the ledger, and a
// claim that does not hold ends the demo with an error. It removes what it created.
package demo

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"towpath.dev/pkg/engine"
	"towpath.dev/pkg/ledger/fold"
	"towpath.dev/services/gateway/view"
	"towpath.dev/services/towpath/client"
	"towpath.dev/services/towpath/screen"
)

// Options of a demo.
type Options struct {
	Screen   screen.Screen
	App      string        // folder of the sample app
	Program  string        // path of this binary
	Engine   engine.Host   // where the app runs
	Compiled time.Duration // how long compiling took before; 0: not known
	Stay     bool          // go on until ctx ends, so that one can look around
}

// app is the name of the sample app, and envs are its environments, as in its towpath.yaml.
const app = "hello"

var envs = []string{"dev", "qa", "prod"}

// removeBound is how long cleaning up may take.
const removeBound = 60 * time.Second

var errInterrupted = errors.New("interrupted before its end")

// demo is one demo on its way.
type demo struct {
	o      Options
	tell   *teller
	dir    string // everything is in here
	system *system
	api    *client.Client
	engine *engine.Engine
	repo   *repository
	images map[string]bool // repository@digest of every image that was made
	runs   []view.Run      // as they ended
}

// Run runs the demo. The error says which claims did not hold, or what went wrong before.
func Run(ctx context.Context, o Options) (err error) {
	began := time.Now()
	dir, err := os.MkdirTemp("", "towpath-demo-")
	if err != nil {
		return fmt.Errorf("making the demo's folder: %w", err)
	}
	d := &demo{o: o, tell: newTeller(o.Screen), dir: dir, images: map[string]bool{}}
	defer func() { err = errors.Join(err, d.remove(context.WithoutCancel(ctx))) }()
	d.tell.title(dir)
	for _, act := range []func(context.Context) error{d.start, d.toProduction, d.brokenHealth, d.wrongSetting} {
		if err := act(ctx); ctx.Err() != nil {
			return errInterrupted
		} else if err != nil {
			d.system.explain(d.tell)
			return err
		}
	}
	d.summary(ctx, time.Since(began))
	if err := d.tell.failed(); err != nil {
		return err
	}
	if o.Stay {
		d.stay(ctx)
	}
	return nil
}

// start brings up a Towpath of its own and the sample app's repository.
func (d *demo) start(ctx context.Context) error {
	d.tell.heading("Start Towpath: bus, registry and every service in one process")
	var err error
	if d.engine, err = engine.Connect(ctx, d.o.Engine); err != nil {
		return err
	}
	began := time.Now()
	data := filepath.Join(d.dir, "data")
	d.tell.command("towpath", "up", "--data", data)
	if d.system, err = startSystem(ctx, d.o.Program, data, filepath.Join(d.dir, "up.log")); err != nil {
		return err
	}
	if d.api, err = client.Open(data); err != nil {
		return err
	}
	if _, err := d.api.Apps(ctx); err != nil {
		return err
	}
	d.tell.holds("it answers at %s after %s", d.api.URL(), screen.Took(time.Since(began)))
	if d.repo, err = newRepository(ctx, d.o.App, filepath.Join(d.dir, app), d.o.Program, data); err != nil {
		return err
	}
	for _, env := range envs[:2] {
		if err := d.configure(ctx, env, "GREETING=Hello from "+env, "DATABASE_URL="+database(env)); err != nil {
			return err
		}
	}
	return nil
}

func database(env string) string { return "postgres://db." + env + ".example.org/hello" }

func (d *demo) configure(ctx context.Context, env string, pairs ...string) error {
	return d.towpath(ctx, append([]string{"config", "set", env, app}, pairs...)...)
}

// towpath runs a command of this binary, as a user would, and shows it.
func (d *demo) towpath(ctx context.Context, args ...string) error {
	d.tell.command(append([]string{"towpath"}, args...)...)
	return d.system.command(ctx, d.tell, args...)
}

// push commits what changed and pushes it; the output is git's own.
func (d *demo) push(ctx context.Context, message string) error {
	d.tell.command("git", "commit", "-am", message)
	if err := d.repo.commit(ctx, message); err != nil {
		return err
	}
	d.tell.command("git", "push", "towpath", "main")
	return d.repo.push(ctx, d.tell)
}

// follow shows a run until enough says so.
func (d *demo) follow(ctx context.Context, number int, enough func(view.Run) bool) (view.Run, error) {
	run, err := d.api.Run(ctx, app, number)
	if err != nil {
		return run, err
	}
	d.tell.gap()
	screen := d.tell.view(number)
	run, err = d.api.Follow(ctx, run, screen.Show, func(r view.Run) bool { return r.Status.Ended() || enough(r) })
	screen.Close()
	d.tell.gap()
	return run, err
}

// waitsBefore reports whether a run waits for a person before an environment.
func waitsBefore(env string) func(view.Run) bool {
	return func(r view.Run) bool {
		s, _ := r.Stage(fold.StagePromote, env)
		return s.Status == fold.Waiting
	}
}

func never(view.Run) bool { return false }

// toProduction carries the first commit all the way.
func (d *demo) toProduction(ctx context.Context) error {
	d.tell.heading("A commit goes to production")
	if err := d.push(ctx, "Greet"); err != nil {
		return err
	}
	run, err := d.follow(ctx, 1, waitsBefore("prod"))
	if err != nil {
		return err
	}
	d.tell.check(expect("hello/1 waits before prod", run.Status, fold.Waiting), "dev and QA are done; prod waits, and the push said so before")
	if err := d.configure(ctx, "prod", "GREETING=Hello from prod", "DATABASE_URL="+database("prod")); err != nil {
		return err
	}
	if err := d.approve(ctx, 1); err != nil {
		return err
	}
	if run, err = d.follow(ctx, 1, never); err != nil {
		return err
	}
	d.end(run)
	d.tell.check(expect("status of hello/1", run.Status, fold.Done), "hello/1 is done")
	for _, env := range envs {
		d.tell.check(d.answers(ctx, env, "Hello from "+env+" (first edition)"), "%s", d.words(ctx, env))
	}
	d.tell.check(d.sameImage(ctx, run), "docker inspect: one image in all three and no other, %s", screen.Digest(run.Digest))
	return nil
}

// approve gives the one approval that prod asks for, once prod asks for it.
func (d *demo) approve(ctx context.Context, number int) error {
	asked := func(r view.Run) bool {
		s, _ := r.Stage(fold.StagePromote, "prod")
		return r.Status.Ended() || s.Status == fold.Waiting && s.Command == fmt.Sprintf("towpath approve %s/%d --env prod", app, number)
	}
	run, err := d.api.Run(ctx, app, number)
	if err != nil {
		return err
	}
	if _, err := d.api.Follow(ctx, run, func(view.Run) error { return nil }, asked); err != nil {
		return err
	}
	return d.towpath(ctx, "approve", fmt.Sprintf("%s/%d", app, number), "--env", "prod")
}

// end keeps a run for the summary and for the cleaning up.
func (d *demo) end(run view.Run) {
	d.runs = append(d.runs, run)
	if run.Digest != "" {
		d.images[d.system.registry+"/"+app+"@"+run.Digest] = true
	}
}

// brokenHealth pushes a commit whose image answers its health check with 500.
func (d *demo) brokenHealth(ctx context.Context) error {
	d.tell.heading("A commit breaks its health check")
	if err := d.repo.edit("health.go", "http.StatusOK", "http.StatusInternalServerError"); err != nil {
		return err
	}
	if err := d.push(ctx, "Break the health check"); err != nil {
		return err
	}
	good := d.runs[0]
	run, err := d.follow(ctx, 2, never)
	if err != nil {
		return err
	}
	d.end(run)
	d.tell.check(errors.Join(expect("status of hello/2", run.Status, fold.Failed), hints(run, "fix and push")), "hello/2 failed: its author fixes and pushes")
	d.tell.check(errors.Join(d.answers(ctx, "dev", "Hello from dev (first edition)"), d.runsIn(ctx, "dev", good)), "dev still serves hello/1")
	for _, env := range envs[1:] {
		d.tell.check(errors.Join(d.neverIn(ctx, env, run), d.answers(ctx, env, "Hello from "+env+" (first edition)"), d.runsIn(ctx, env, good)),
			"%s never saw hello/2", env)
	}
	return nil
}

// wrongSetting lets a good commit meet a wrong setting in QA.
func (d *demo) wrongSetting(ctx context.Context) error {
	d.tell.heading("A good commit meets a wrong setting in QA")
	if err := d.configure(ctx, "qa", "DATABASE_URL=mysql://db.qa.example.org/hello"); err != nil {
		return err
	}
	err := errors.Join(d.repo.edit("health.go", "http.StatusInternalServerError", "http.StatusOK"), d.repo.edit("main.go", "first edition", "second edition"))
	if err != nil {
		return err
	}
	if err := d.push(ctx, "Mend the health check; second edition"); err != nil {
		return err
	}
	stopped, err := d.follow(ctx, 3, waitsBefore("prod"))
	if err != nil {
		return err
	}
	const replay = "towpath replay hello/3 promote --env qa"
	d.tell.check(errors.Join(expect("status of hello/3", stopped.Status, fold.Stuck), hints(stopped, replay)), "hello/3 is stuck in QA, and an operator is told what to type")
	d.tell.check(errors.Join(d.answers(ctx, "qa", "Hello from qa (first edition)"), d.runsIn(ctx, "qa", d.runs[0])), "QA still serves hello/1")
	if err := d.configure(ctx, "qa", "DATABASE_URL="+database("qa")); err != nil {
		return err
	}
	if err := d.towpath(ctx, "replay", "hello/3", "promote", "--env", "qa", "--yes"); err != nil {
		return err
	}
	if _, err := d.follow(ctx, 3, waitsBefore("prod")); err != nil {
		return err
	}
	if err := d.approve(ctx, 3); err != nil {
		return err
	}
	run, err := d.follow(ctx, 3, never)
	if err != nil {
		return err
	}
	d.end(run)
	d.tell.check(expect("status of hello/3", run.Status, fold.Done), "hello/3 is done")
	d.tell.check(errors.Join(expect("digest of hello/3", run.Digest, stopped.Digest), d.builtOnce(ctx, 3)), "with the digest of before, and no rebuild")
	for _, env := range envs {
		d.tell.check(d.answers(ctx, env, "Hello from "+env+" (second edition)"), "%s", d.words(ctx, env))
	}
	d.tell.check(d.sameImage(ctx, run), "docker inspect: one image in all three and no other, %s", screen.Digest(run.Digest))
	return nil
}
