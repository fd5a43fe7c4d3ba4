package demo

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"towpath.dev/pkg/ledger/fold"
	"towpath.dev/services/gateway/view"
	"towpath.dev/services/towpath/screen"
)

// summary prints where everything runs, the digest, and the time of each stage.
func (d *demo) summary(ctx context.Context, total time.Duration) {
	d.tell.heading("What stands now")
	for _, env := range envs {
		x, err := d.deployment(ctx, env)
		if err != nil {
			d.tell.check(err, "%s", env)
			continue
		}
		d.tell.line(fmt.Sprintf("%s%-5s %s", margin, env, d.tell.s.Paint(screen.Bold, x.Endpoints[0])))
	}
	if last := d.runs[len(d.runs)-1]; last.Digest != "" {
		d.tell.line(fmt.Sprintf("%simage %s", margin, last.Digest))
	}
	d.tell.gap()
	d.times()
	d.tell.gap()
	text := "took " + screen.Took(total)
	if d.o.Compiled > 0 {
		text += ", after " + screen.Took(d.o.Compiled) + " of compiling"
	}
	d.tell.line(margin + text)
}

// times is a table of how long each stage of each run took.
func (d *demo) times() {
	t := screen.Table{Margin: margin, Heading: append([]string{"RUN", "STATUS", "build", "vet"}, envs...)}
	for _, r := range d.runs {
		_, style := screen.Mark(r.Status)
		row := []screen.Cell{screen.Text("%s", r.Run), screen.In(style, string(r.Status))}
		for _, stage := range []string{fold.StageBuild, fold.StageVet} {
			st, _ := r.Stage(stage, "")
			row = append(row, took(st))
		}
		for _, env := range envs {
			promote, _ := r.Stage(fold.StagePromote, env)
			verify, _ := r.Stage(fold.StageVerify, env)
			if promote.Started != nil && verify.Finished != nil {
				promote.Finished = verify.Finished
			}
			row = append(row, took(promote))
		}
		t.Add(row...)
	}
	d.tell.s.Table(t)
	d.tell.spaced = false
}

func took(s view.Stage) screen.Cell {
	if s.Started == nil || s.Finished == nil {
		return screen.In(screen.Dim, "-")
	}
	return screen.Text("%s", screen.Took(s.Finished.Sub(*s.Started)))
}

// stay leaves everything up until ctx ends.
func (d *demo) stay(ctx context.Context) {
	d.tell.gap()
	d.tell.line(margin + "It stays up until Ctrl-C. In another terminal:")
	d.tell.line(margin + "  export TOWPATH_DATA=" + d.system.data)
	program := fromHere(d.o.Program)
	d.tell.line(margin + "  " + program + " show hello/3")
	d.tell.line(margin + "  " + program + " events hello/3")
	if prod, err := d.deployment(ctx, "prod"); err == nil {
		d.tell.line(margin + "  curl " + prod.Endpoints[0])
	}
	<-ctx.Done()
}

// fromHere is a path as one would type it in this folder.
func fromHere(path string) string {
	here, err := os.Getwd()
	if err != nil {
		return path
	}
	short, err := filepath.Rel(here, path)
	if err != nil || strings.HasPrefix(short, "..") {
		return path
	}
	return short
}

// Stays reports whether a demo on this terminal stays up: where somebody can end it.
func Stays(s screen.Screen) bool { return s.Width > 0 && os.Getenv("CI") != "true" }
