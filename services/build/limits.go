package build

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"towpath.dev/pkg/policy"
)

// Limit is one bound on builds: how much it is, whether it holds, and why or why not.
type Limit struct {
	Name  string // "time", "memory", "cpus", "processes"
	Value string
	Holds bool
	Why   string
}

// Limits says which limits of the platform hold for builds.
//
// Time always does: the build is stopped by its client, and BuildKit ends what runs. The others are put by
// this service on the control group that holds the build containers of a Docker Engine on this machine,
// for all builds together. They are put there only where the engine is said to be dedicated to builds,
// since other people's builds on it would share them, and are read back here: one that cannot be seen
// does not hold.
func Limits(p *policy.Platform) []Limit {
	l := p.Limits.Build
	all := []Limit{
		{Name: "time", Value: p.BuildTimeout(0).String(), Holds: true, Why: "build stops what takes longer"},
		{Name: "memory", Value: megabytes(l.Memory)},
		{Name: "cpus", Value: strconv.FormatFloat(l.CPUs, 'g', -1, 64)},
		{Name: "processes", Value: strconv.Itoa(l.PIDs)},
	}
	why := noGroup(p.Engines.Build)
	group := buildGroup{root: cgroupRoot}
	for i := range all[1:] {
		limit := &all[1+i]
		if why != "" {
			limit.Why = why
		} else if err := group.check(limit.Name, l); err != nil {
			limit.Why = err.Error()
		} else {
			limit.Holds, limit.Why = true, "set on the control group of the engine's build containers, for all builds together"
		}
	}
	return all
}

// noGroup says why no limits are put on an engine's build containers; empty: they are.
func noGroup(e policy.Engine) string {
	if !e.Dedicated {
		return "the engine is not dedicated to builds; give builds one of their own and say engines.build.dedicated: true"
	}
	if !strings.HasPrefix(e.Host, "unix://") {
		return "the engine is on another machine, whose size is the limit; to lower it, put that engine into a control group there"
	}
	return ""
}

const cgroupRoot = "/sys/fs/cgroup"

// buildGroup is the control group in which a Docker Engine with the cgroupfs driver runs the containers of
// its builds, and nothing else. The engine makes it at its first build.
type buildGroup struct{ root string }

const buildGroupName = "docker/buildkit"

// setting is one file of the group: where it is and what it is to hold.
type setting struct {
	limit, path, value string
}

// settings of cgroup version 1, which has a tree for each controller, or 2. The period of CPU time is
// 100 ms in both.
func (g buildGroup) settings(l policy.BuildLimits) []setting {
	memory, quota, pids := strconv.FormatInt(l.Memory, 10), strconv.Itoa(int(l.CPUs*100_000)), strconv.Itoa(l.PIDs)
	if _, err := os.Stat(filepath.Join(g.root, "cgroup.controllers")); err == nil {
		dir := filepath.Join(g.root, buildGroupName)
		return []setting{
			{"memory", dir + "/memory.max", memory}, {"cpus", dir + "/cpu.max", quota + " 100000"}, {"processes", dir + "/pids.max", pids},
		}
	}
	file := func(controller, name string) string { return filepath.Join(g.root, controller, buildGroupName, name) }
	return []setting{
		{"memory", file("memory", "memory.limit_in_bytes"), memory},
		{"cpus", file("cpu", "cpu.cfs_quota_us"), quota},
		{"processes", file("pids", "pids.max"), pids},
	}
}

// apply writes the limits. The error wraps fs.ErrNotExist while the engine has not made the group.
func (g buildGroup) apply(l policy.BuildLimits) error {
	var errs []error
	for _, s := range g.settings(l) {
		f, err := os.OpenFile(s.path, os.O_WRONLY|os.O_TRUNC, 0) // never made here: only the engine's own group counts
		if err == nil {
			_, err = f.WriteString(s.value)
			err = errors.Join(err, f.Close())
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// check returns why a limit does not hold, or nil.
func (g buildGroup) check(limit string, l policy.BuildLimits) error {
	for _, s := range g.settings(l) {
		if s.limit != limit {
			continue
		}
		set, err := os.ReadFile(s.path)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return fmt.Errorf("the engine has made no control group for builds here (%s); it does at its first build, with the cgroupfs driver", filepath.Dir(s.path))
		case err != nil:
			return err
		case strings.TrimSpace(string(set)) != s.value:
			return fmt.Errorf("%s holds %q, not %s; build writes it when it builds, and must be root for that", s.path, strings.TrimSpace(string(set)), s.value)
		}
	}
	return nil
}

// keep applies the limits as soon as the group is there, until ctx ends.
func (g buildGroup) keep(ctx context.Context, l policy.BuildLimits) {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for errors.Is(g.apply(l), fs.ErrNotExist) {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}
