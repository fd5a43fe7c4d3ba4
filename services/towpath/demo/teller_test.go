package demo

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

	"towpath.dev/pkg/ledger/fold"
	"towpath.dev/services/gateway/view"
	"towpath.dev/services/towpath/screen"
)

func TestCommandsAreBrokenAsAShellTakesThem(t *testing.T) {
	var out bytes.Buffer
	tell := newTeller(screen.Screen{Out: &out, Width: 40})
	tell.command("towpath", "config", "set", "qa", "hello", "GREETING=Hello from qa", "A=b")
	want := "   $ towpath config set qa hello \\\n       'GREETING=Hello from qa' A=b\n"
	if out.String() != want {
		t.Errorf("got:\n%s\nwant:\n%s", out.String(), want)
	}
}

func TestOutputIsIndentedBrokenAndSafe(t *testing.T) {
	var out bytes.Buffer
	w := newIndented(screen.Screen{Out: &out, Width: 30}, margin)
	fmt.Fprint(w, "remote:   a line that is longer than thirty columns\x1b[K\nsho")
	fmt.Fprint(w, "rt\n\x1b[31mred\n\nlast")
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	want := "   remote:   a line that is\n         longer than thirty\n         columns\n   short\n   ·[31mred\n\n   last\n"
	if out.String() != want {
		t.Errorf("got:\n%s\nwant:\n%s", out.String(), want)
	}
	for _, l := range strings.Split(out.String(), "\n") {
		if utf8.RuneCountInString(l) > 30 {
			t.Errorf("%q is too long", l)
		}
	}
}

func TestABrokenClaimFailsTheDemo(t *testing.T) {
	var out bytes.Buffer
	tell := newTeller(screen.Screen{Out: &out})
	tell.holds("one")
	if err := tell.failed(); err != nil {
		t.Fatal(err)
	}
	tell.check(errors.New("because"), "two of %d", 2)
	if err := tell.failed(); err == nil || !strings.Contains(err.Error(), "two of 2") {
		t.Errorf("got %v", err)
	}
	if want := "   ✓ one\n   ✗ two of 2\n     because\n"; out.String() != want {
		t.Errorf("got:\n%s", out.String())
	}
}

func TestExpectAndHints(t *testing.T) {
	if err := expect("status", fold.Done, fold.Done); err != nil {
		t.Error(err)
	}
	if err := expect("status", fold.Stuck, fold.Done); err == nil || !strings.Contains(err.Error(), "stuck, not done") {
		t.Errorf("got %v", err)
	}
	run := view.Run{Run: "hello/2", Stages: []view.Stage{{Command: "fix and push"}}}
	if err := hints(run, "fix and push"); err != nil {
		t.Error(err)
	}
	if err := hints(run, "towpath replay"); err == nil {
		t.Error("a hint that is not there was found")
	}
}
