package page

import (
	"bytes"
	"encoding/xml"
	"errors"
	"flag"
	"io"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"towpath.dev/pkg/ledger/fold"
	"towpath.dev/services/gateway/view"
)

var out = flag.String("out", "", "folder in which the pages are left, to be looked at")

var now = time.Date(2026, 3, 1, 12, 2, 13, 0, time.UTC)

func at(seconds float64) *time.Time {
	t := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC).Add(time.Duration(seconds * float64(time.Second)))
	return &t
}

// run is a run whose stages have these statuses: build, vet, then promote and verify for dev, qa and prod.
func run(status fold.Status, statuses ...fold.Status) view.Run {
	v := view.Run{
		App: "hello", Run: "hello/3", Number: 3, Commit: "4f2a9c1be07d5a0a4f2a9c1be07d5a0a4f2a9c1b", Status: status, Created: *at(0),
		Digest: "sha256:9b1f2c3d4e5f60718293a4b5c6d7e8f90112233445566778899aabbccddeeff0", Seq: 30,
	}
	names := []view.Stage{{Stage: "build"}, {Stage: "vet"}, {Stage: "promote", Env: "dev"}, {Stage: "verify", Env: "dev"}, {Stage: "promote", Env: "qa"}, {Stage: "verify", Env: "qa"}, {Stage: "promote", Env: "prod"}, {Stage: "verify", Env: "prod"}}
	for i, s := range names {
		s.Attempt, s.Status = 1, "pending"
		if i < len(statuses) {
			s.Status = statuses[i]
		}
		if s.Status != "pending" {
			s.Started = at(float64(i)*2.3 + .2)
		}
		if s.Status != "pending" && s.Status != "running" && s.Status != "waiting" {
			s.Finished = at(float64(i)*2.3 + 1.9)
		}
		v.Stages = append(v.Stages, s)
	}
	return v
}

var fixtures = map[string]func() view.Run{
	"waiting": func() view.Run {
		r := run("waiting", "done", "done", "done", "done", "done", "done", "waiting")
		r.Stages[1].Detail = "prod: warn: licence of libfoo 1.2 is not known"
		r.Detail, r.For, r.Command = "0 of 1 approval given", "an approver", "towpath approve hello/3 --env prod"
		s := &r.Stages[6]
		s.Detail, s.For, s.Command, s.Started = r.Detail, r.For, r.Command, nil
		return r
	},
	"failed": func() view.Run {
		r := run("failed", "done", "done", "failed")
		r.Detail = "deploying to dev: replica 1 did not become healthy within 30s: GET /health answered 500\nlistening on :8080\nGET /health 500 could not reach postgres://db.internal:5432/a-very-long-database-name-that-does-not-break-anywhere-by-itself\n" + strings.Repeat("GET /health 500\n", 12)
		r.For, r.Command, r.Finished = "the author", "fix and push", at(9)
		r.Stages[2].Detail, r.Stages[2].For, r.Stages[2].Command = r.Detail, r.For, r.Command
		return r
	},
	"stuck": func() view.Run {
		r := run("stuck", "done", "done", "done", "done", "stuck")
		r.Detail, r.For, r.Command = "deploying to qa: the engine does not answer", "an operator", "towpath replay hello/3 promote --env qa"
		r.Stages[4].Detail, r.Stages[4].For, r.Stages[4].Attempt = r.Detail, r.For, 2
		return r
	},
	"running": func() view.Run { return run("running", "done", "done", "done", "running") },
	"queued":  func() view.Run { return run("queued") },
	"done": func() view.Run {
		r := run("done", "done", "done", "done", "done", "done", "done", "done", "done")
		r.Finished = at(18)
		return r
	},
	"superseded": func() view.Run {
		r := run("superseded", "done", "done", "done", "done")
		r.Detail, r.Finished = "hello/4 took its place", at(9)
		return r
	},
	"image": func() view.Run {
		r := run("running", "skipped", "running")
		r.Commit = ""
		return r
	},
	"hostile": func() view.Run {
		r := run("failed", "failed")
		r.App, r.Run, r.Detail, r.Command = "hello", "hello/3", `</pre><script>alert(1)</script>"'><img src=x onerror=alert(2)>`, `javascript:alert(3)`
		r.Stages[0].Detail = r.Detail
		r.Commit = `"><script>alert(4)</script>`
		return r
	},
	"many": func() view.Run {
		r := run("running", "done", "done", "done", "done", "done", "done", "done", "done")
		for _, env := range []string{"staging-eu-west", "staging-us", "canary", "production-with-a-long-name"} {
			r.Stages = append(r.Stages, view.Stage{Stage: "promote", Env: env, Attempt: 1, Status: "pending"}, view.Stage{Stage: "verify", Env: env, Attempt: 1, Status: "pending"})
		}
		return r
	},
}

func TestPages(t *testing.T) {
	p := New([]byte(strings.Repeat("k", keySize)))
	endpoints := map[string]string{"dev": "http://hello.dev.localhost:7080/"}
	for name, make := range fixtures {
		t.Run(name, func(t *testing.T) {
			r := make()
			w := httptest.NewRecorder()
			if err := p.Run(w, r, endpoints, now); err != nil {
				t.Fatal(err)
			}
			text := w.Body.String()
			keep(t, name+".html", text)
			wellFormed(t, text)
			if strings.Contains(text, "<script>alert") || strings.Contains(text, "<img") {
				t.Error("what a run says became part of the page")
			}
			if strings.Count(text, "<script") != 1 || strings.Contains(text, "http://") && !strings.Contains(text, "hello.dev.localhost") {
				t.Error("more scripts, or another host")
			}
			if !strings.Contains(text, ">"+string(r.Status)+"<") && !strings.Contains(text, "</span> "+string(r.Status)+"</span>") {
				t.Errorf("the status is not said in words")
			}
			if goesOn := strings.Contains(text, "http-equiv=\"refresh\""); goesOn == (r.Finished != nil) {
				t.Errorf("it is loaded again: %v", goesOn)
			}
			part := httptest.NewRecorder()
			if err := p.Part(part, r, endpoints, now); err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(text, part.Body.String()) {
				t.Error("the part is not what the page holds")
			}
		})
	}
	w := httptest.NewRecorder()
	if err := p.Index(w, []view.Run{fixtures["waiting"](), fixtures["failed"](), fixtures["running"](), fixtures["done"](), fixtures["image"]()}, now); err != nil {
		t.Fatal(err)
	}
	keep(t, "index.html", w.Body.String())
	wellFormed(t, w.Body.String())
	w = httptest.NewRecorder()
	if err := p.Index(w, nil, now); err != nil || !strings.Contains(w.Body.String(), "No run yet") {
		t.Errorf("an empty index: %v", err)
	}
}

func keep(t *testing.T, name, text string) {
	if *out == "" {
		return
	}
	if err := os.WriteFile(filepath.Join(*out, name), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// wellFormed checks that every element is closed, which browsers forgive and people with other readers pay for.
func wellFormed(t *testing.T, text string) {
	t.Helper()
	text = regexp.MustCompile(`(?s)<(style|script)[^>]*>.*?</(style|script)>`).ReplaceAllString(text, "")
	d := xml.NewDecoder(strings.NewReader(strings.Replace(text, "<!doctype html>", "", 1)))
	d.Strict, d.AutoClose, d.Entity = false, xml.HTMLAutoClose, xml.HTMLEntity
	for {
		_, err := d.Token()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func TestCapabilities(t *testing.T) {
	p, other := New([]byte(strings.Repeat("k", keySize))), New([]byte(strings.Repeat("j", keySize)))
	for name, path := range map[string]string{"own": p.RunPath("hello", 3)} {
		r := httptest.NewRequest("GET", path, nil)
		if !p.MaySeeRun(r, "hello", 3) {
			t.Errorf("%s: not shown", name)
		}
		if p.MaySeeRun(r, "hello", 4) || p.MaySeeRun(r, "hell", 3) || p.MaySeeIndex(r) || other.MaySeeRun(r, "hello", 3) {
			t.Errorf("%s: it opens more than its run", name)
		}
	}
	if !p.MaySeeIndex(httptest.NewRequest("GET", p.IndexPath(), nil)) || p.MaySeeIndex(httptest.NewRequest("GET", "/?key=", nil)) {
		t.Error("the index's capability is wrong")
	}
}

func TestLoadKey(t *testing.T) {
	path := filepath.Join(t.TempDir(), KeyFile)
	first, err := LoadKey(path)
	if err != nil || len(first) != keySize {
		t.Fatal(err)
	}
	if again, err := LoadKey(path); err != nil || !bytes.Equal(again, first) {
		t.Errorf("another key: %v", err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v", info.Mode())
	}
	if err := os.WriteFile(path, []byte("short"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadKey(path); err == nil {
		t.Error("a short key is taken")
	}
	if _, err := LoadKey(filepath.Join(path, "nowhere")); err == nil {
		t.Error("a key in no folder is taken")
	}
}

func TestHuman(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-time.Second: "0ms", 590 * time.Millisecond: "590ms", 1400 * time.Millisecond: "1.4s", 42 * time.Second: "42s",
		2*time.Minute + 3*time.Second: "2m03s", 3*time.Hour + 4*time.Minute: "3h04m",
	} {
		if got := human(d); got != want {
			t.Errorf("%s is %q, want %q", d, got, want)
		}
	}
	if got := ago(50 * time.Hour); got != "2 days ago" {
		t.Error(got)
	}
}
