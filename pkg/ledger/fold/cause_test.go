package fold_test

import (
	"strings"
	"testing"

	"towpath.dev/events"
	"towpath.dev/pkg/ledger/fold"
)

func TestWhatDiffersFromRunToRunIsNoCause(t *testing.T) {
	run := &fold.Run{App: "hello", N: 3}
	for text, want := range map[string]string{
		"pushing image: dial tcp 127.0.0.1:5000: connect: connection refused": "pushing image: dial tcp 127.0.0.1:5000: connect: connection refused",
		`Get "http://registry:5000/v2/hello/blobs/": EOF`:                     `Get "…": EOF`,
		"towpath-154f4dbe-hello.qa-2-1: it exited with code 1 after -2ms":     "…: it exited with code 1 after …",
		"image r/hello@sha256:2350bf5f3568 is gone":                           "image … is gone",
		"at 2026-11-23T07:37:57Z it was 07:37:57.123 still down":              "at … it was … still down",
		"read tcp 127.0.0.1:43210->127.0.0.1:5000: reset":                     "read tcp …: reset",
		"GET http://127.0.0.1:40693/health answers 500":                       "GET … answers 500",
		"building the image: no space left on device\nand a log\n12:00:00":    "building the image: no space left on device",
		"othello is not hello/3":                                              "othello is not …",
		"":                                                                    "",
	} {
		if got := run.Alike(text); got != want {
			t.Errorf("%q is %q, want %q", text, got, want)
		}
	}
	if long := run.Alike(strings.Repeat("é", 1000)); len(long) > 250 {
		t.Errorf("%d bytes", len(long))
	}
}

// A stage that watch has spoken of has the cause that watch gave, and one that it is yet to speak of has the same.
func TestCause(t *testing.T) {
	run := &fold.Run{App: "hello", N: 3}
	trouble := &events.Trouble{What: "starting hello-3", Why: "it exited with code 1", Do: "look"}
	for name, c := range map[string]struct {
		stage fold.Stage
		want  string
	}{
		"as watch says":           {fold.Stage{Stuck: &events.StageStuck{Cause: "its deadline passed", LastError: "after 3s"}, Trouble: trouble}, "its deadline passed"},
		"an older event of watch": {fold.Stage{Stuck: &events.StageStuck{LastError: "after 3s"}, Trouble: trouble}, "after …"},
		"watch is yet to speak":   {fold.Stage{Trouble: trouble}, "starting …: it exited with code 1"},
		"another number":          {fold.Stage{Trouble: &events.Trouble{What: "starting hello-3", Why: "it exited with code 137"}}, "starting …: it exited with code 137"},
		"no reason":               {fold.Stage{Trouble: &events.Trouble{What: "starting hello-3"}}, "starting …"},
		"nothing known":           {fold.Stage{}, ""},
	} {
		if got := run.Cause(c.stage); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}
