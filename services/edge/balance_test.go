package edge

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

var noon = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

func TestCondition(t *testing.T) {
	failed := func(times int) condition {
		var c condition
		for range times {
			c = c.checked("500")
		}
		return c
	}
	for _, c := range []struct {
		name string
		c    condition
		at   time.Time
		up   bool
	}{
		{"fresh", condition{}, noon, true},
		{"two checks failed", failed(2), noon, true},
		{"three checks failed", failed(3), noon, false},
		{"three checks failed, long ago", failed(3), noon.Add(24 * time.Hour), false},
		{"a good check after three bad ones", failed(3).checked(""), noon, true},
		{"a failed dial", condition{}.undialled("refused", noon, false), noon, false},
		{"a failed dial, its time is over", condition{}.undialled("refused", noon, false), noon.Add(downFor), true},
		{"a failed dial of a checked one", condition{}.undialled("refused", noon, true), noon.Add(downFor), false},
		{"and a good check", condition{}.undialled("refused", noon, true).checked(""), noon, true},
	} {
		if got := c.c.up(c.at); got != c.up {
			t.Errorf("%s: up is %v, want %v", c.name, got, c.up)
		}
	}
}

func TestChoose(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 6).Draw(t, "replicas")
		replicas, tried := make([]condition, n), make([]bool, n)
		may := 0
		for i := range n {
			if rapid.Bool().Draw(t, "down") {
				replicas[i] = condition{}.undialled("refused", noon, true)
			}
			tried[i] = rapid.Bool().Draw(t, "tried")
			if replicas[i].up(noon) && !tried[i] {
				may++
			}
		}
		last := rapid.IntRange(0, n+2).Draw(t, "last")
		counts := make([]int, n)
		for range 6 * n {
			i := choose(replicas, tried, last, noon)
			if may == 0 {
				if i != -1 {
					t.Fatalf("chose %d where none may be", i)
				}
				return
			}
			if !replicas[i].up(noon) || tried[i] {
				t.Fatalf("chose %d, which is down or was tried", i)
			}
			counts[i]++
			last = i
		}
		least, most := 6*n, 0
		for i, c := range counts {
			if replicas[i].up(noon) && !tried[i] {
				least, most = min(least, c), max(most, c)
			}
		}
		if most-least > 1 {
			t.Fatalf("not in turn: %v", counts)
		}
	})
}
