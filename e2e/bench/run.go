package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"towpath.dev/e2e/system"
)

// The app of the whole run: three environments, one replica each, health over HTTP; nobody has to approve, so that
// nothing is waited for but machines.
const (
	benchApp      = "bench"
	benchPipeline = `app: bench
service: {port: 8080, health: /health}
environments: [{name: dev}, {name: qa}, {name: prod}]
`
	benchPlatform = "policy:\n  approvals: {prod: {count: 0}}\n"
	benchFile     = "FROM scratch\nCOPY sample version /\nENTRYPOINT [\"/sample\"]\n"
)

var benchEnvironments = []string{"dev", "qa", "prod"}

// opened is a Towpath in a folder of its own.
type opened struct {
	*system.System
	binaries system.Binaries
	folder   string
}

func openSystem(ctx context.Context) (*opened, error) {
	binaries, err := system.Build(ctx, false)
	if err != nil {
		return nil, err
	}
	folder, err := os.MkdirTemp("", "towpath-bench-")
	if err != nil {
		return nil, err
	}
	s, err := system.Start(ctx, system.Options{Shape: system.AllInOne, Binaries: binaries, Folder: filepath.Join(folder, "system"), Platform: benchPlatform})
	if err != nil {
		os.RemoveAll(folder)
		return nil, err
	}
	return &opened{System: s, binaries: binaries, folder: folder}, nil
}

// close stops it, also where ctx has ended, and removes its folder.
func (o *opened) close(ctx context.Context) {
	o.Close(context.WithoutCancel(ctx))
	os.RemoveAll(o.folder)
}

// wholeRun measures from the beginning of a git push to the moment when prod is verified, against the same
// operations scripted back to back: push, build, push to the registry, and for each environment start, wait until
// healthy, stop the old. Runs and scripted ones take turns, so that the machine's moods hit both.
func wholeRun(ctx context.Context, o options) ([]figure, error) {
	s, err := openSystem(ctx)
	if err != nil {
		return nil, err
	}
	defer s.close(ctx)
	idle, err := idleMemory(ctx, s.System)
	if err != nil {
		return nil, err
	}
	script, err := newScript(ctx, s.folder, s.binaries)
	if err != nil {
		return nil, err
	}
	defer func() { script.close(context.WithoutCancel(ctx)) }()
	repository, err := newRepository(ctx, filepath.Join(s.folder, "app"), s.binaries.Sample)
	if err != nil {
		return nil, err
	}
	var runs, scripted []time.Duration
	for n := 1; n <= o.runs+1; n++ {
		if err := repository.change(ctx, fmt.Sprintf("run %d", n)); err != nil {
			return nil, err
		}
		run, err := towpathRun(ctx, s.System, repository, n)
		if err != nil {
			return nil, err
		}
		if err := repository.change(ctx, fmt.Sprintf("script %d", n)); err != nil {
			return nil, err
		}
		same, err := script.carry(ctx, repository)
		if err != nil {
			return nil, fmt.Errorf("the scripted operations: %w", err)
		}
		if n > 1 { // the first of each warms caches up and has nothing old to stop
			runs, scripted = append(runs, run), append(scripted, same)
		}
	}
	r, c := share(runs, 0.5), share(scripted, 0.5)
	return []figure{
		{"git push to verified in prod, median of " + fmt.Sprint(o.runs), ms(r), "", true},
		{"the same Docker operations scripted back to back, median", ms(c), "", true},
		{"whole run ÷ the same operations scripted", ratio(r, c), "≤ 1.10", float64(r) <= 1.1*float64(c)},
		{"whole run − the same operations scripted", ms(r - c), "≤ 150 ms", r-c <= 150*time.Millisecond},
		{"all-in-one, idle, resident memory", fmt.Sprintf("%d MiB", idle>>20), "≤ 150 MiB", idle <= 150<<20},
	}, nil
}

// idleMemory waits until the memory of a fresh system has settled.
func idleMemory(ctx context.Context, s *system.System) (int64, error) {
	var before int64
	for range 20 {
		now, err := s.Memory("towpath")
		if err != nil {
			return 0, err
		}
		if before > 0 && now-before < 1<<20 && before-now < 1<<20 {
			return now, nil
		}
		before = now
		select {
		case <-time.After(500 * time.Millisecond):
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
	return before, nil
}

func towpathRun(ctx context.Context, s *system.System, r *repository, n int) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	begin := time.Now()
	if err := r.push(ctx, s.Variables()["GIT"]+"/"+benchApp+".git"); err != nil {
		return 0, err
	}
	verified := regexp.MustCompile(fmt.Sprintf(`"subject":"event\.1\.promote\.%s\._\.prod\.slot\.closed\.%d\.`, benchApp, n))
	if err := s.Await(ctx, benchApp, verified); err != nil {
		return 0, fmt.Errorf("run %d: %w", n, err)
	}
	return time.Since(begin), nil
}

// repository is a git repository with the app.
type repository struct{ folder string }

func newRepository(ctx context.Context, folder, sample string) (*repository, error) {
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return nil, err
	}
	binary, err := os.ReadFile(sample)
	if err != nil {
		return nil, err
	}
	for name, content := range map[string][]byte{
		"sample": binary, "Dockerfile": []byte(benchFile), "towpath.yaml": []byte(benchPipeline),
	} {
		if err := os.WriteFile(filepath.Join(folder, name), content, 0o755); err != nil {
			return nil, err
		}
	}
	r := &repository{folder}
	return r, r.git(ctx, "init", "-q", "-b", "main")
}

func (r *repository) git(ctx context.Context, args ...string) error {
	args = append([]string{"-C", r.folder, "-c", "user.name=bench", "-c", "user.email=bench@example.org"}, args...)
	return run(ctx, "git", args...)
}

// change makes and commits a new version.
func (r *repository) change(ctx context.Context, version string) error {
	if err := os.WriteFile(filepath.Join(r.folder, "version"), []byte(version+"\n"), 0o644); err != nil {
		return err
	}
	if err := r.git(ctx, "add", "-A"); err != nil {
		return err
	}
	return r.git(ctx, "commit", "-q", "-m", strings.TrimSpace(version))
}

func (r *repository) push(ctx context.Context, to string) error {
	return r.git(ctx, "push", "-q", to, "HEAD:main")
}
