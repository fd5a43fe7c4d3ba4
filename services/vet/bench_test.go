package vet

import (
	"fmt"
	"io"
	"testing"

	"towpath.dev/events"
	"towpath.dev/pkg/policy"
	"towpath.dev/services/vet/imagetest"
)

// BenchmarkPerform judges small images that nobody looked at before: what a run waits for besides its
// image's size.
func BenchmarkPerform(b *testing.B) {
	w := newBench(b)
	if err := taker.Prepare(); err != nil {
		b.Fatal(err)
	}
	n := 0
	for b.Loop() {
		b.StopTimer()
		n++
		a := w.push(imagetest.Image(b, imagetest.Layer(b, imagetest.Tar(b, imagetest.File{Path: "app", Body: []byte(fmt.Sprint(n)), Mode: 0o755}))))
		w.state(events.Build, a, commit)
		j := jobFor(a, policy.Default().Policy)
		b.StartTimer()
		if _, err := w.perform(b.Context(), j, io.Discard); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkPerformAgain judges an image that was judged before.
func BenchmarkPerformAgain(b *testing.B) {
	w := newBench(b)
	a := w.push(program(b))
	w.state(events.Build, a, commit)
	j := jobFor(a, policy.Default().Policy)
	w.judge(j)
	for b.Loop() {
		if _, err := w.perform(b.Context(), j, io.Discard); err != nil {
			b.Fatal(err)
		}
	}
}
