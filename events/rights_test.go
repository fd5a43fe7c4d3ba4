package events

import (
	"slices"
	"testing"
)

// A type that no writer may write cannot be stored, and one that cannot be decoded is never read.
func TestEveryTypeHasAWriter(t *testing.T) {
	for typ := range bodies {
		if !slices.ContainsFunc(Writers, func(w Writer) bool { return MayWrite(w, typ) }) {
			t.Errorf("nobody may write %s", typ)
		}
	}
	for typ, writers := range rights {
		if bodies[typ] == nil {
			t.Errorf("%q may write %s, and nobody can read it", writers, typ)
		}
		for _, w := range writers {
			if !slices.Contains(Writers, w) {
				t.Errorf("%s may write %s, and writes no events", w, typ)
			}
		}
	}
	if MayWrite(Build, "dev.cdeventsx.towpath-future.received.0.1.0") {
		t.Error("build may write what nobody knows")
	}
}
