package notify

import (
	"strings"
	"testing"

	"towpath.dev/events"
	"towpath.dev/pkg/ledger/fold/foldtest"
	"towpath.dev/pkg/policy"
)

// Each drift is told once, whether or not it is over when it is read, and its end is told to nobody.
func TestDriftIsTold(t *testing.T) {
	l := foldtest.New()
	deployed(l, 1, events.KindDeploy)
	about := events.About{ID: "hello/dev/container x"}
	drift := events.Drift{App: "hello", Environment: "dev", Slot: 1, What: "container x", Expected: "running", Found: "gone"}
	found := &events.DriftDetected{About: about, Drift: drift}
	write(l, events.DriftSubject(1, found.Type(), "hello", "dev", 1), found)
	detected := newest(l)
	first, ok := tell(l, detected)
	want := "container x: gone, expected: running"
	if !ok || first.Kind != policy.NoticeDrift || first.Env != "dev" || first.Run != 1 || first.Command != "towpath env show dev" ||
		first.Detail != want || !strings.HasPrefix(first.Text, "hello in dev was changed") {
		t.Errorf("%v %+v", ok, first)
	}
	if text := string(body(first, "http://page")); !strings.Contains(text, want) || !strings.Contains(text, first.Command) {
		t.Errorf("posted: %s", text)
	}

	over := &events.DriftResolved{About: about, Drift: drift}
	write(l, events.DriftSubject(1, over.Type(), "hello", "dev", 1), over)
	if n, ok := last(l); ok {
		t.Errorf("its end is told: %+v", n)
	}
	if late, ok := tell(l, detected); !ok || late.ID != first.ID {
		t.Errorf("read late: %v %+v", ok, late)
	}
	write(l, events.DriftSubject(1, found.Type(), "hello", "dev", 2), found)
	if second, ok := last(l); !ok || second.ID == first.ID {
		t.Errorf("the same again: %v %+v", ok, second)
	}
}
