package build

import (
	"fmt"
	"io"
	"path/filepath"
	"testing"
	"time"

	"towpath.dev/pkg/engine"
	"towpath.dev/pkg/pipeline"
)

// BenchmarkBuild compares a run's build, from the push's event to artifact.published, with the same work by
// hand: git pull, BuildKit and docker push, back to back, with the same engine and registry. In both, one file
// has changed since the build before and the steps above it are cached; "recognised" is a commit whose tree
// was built before. Output and provenance are the run's alone.
func BenchmarkBuild(b *testing.B) {
	bench := newBench(b)
	e := testEngine(b)
	change := func() string { return bench.repo.commit("file", fmt.Sprint(time.Now().UnixNano())) }
	bench.repo.commit("Dockerfile", bench.dockerfile("RUN echo once > /once", "COPY file /file"))
	bench.built("hello", bench.push("hello", change(), ""), 1)
	hand := &repo{t: b, dir: filepath.Join(b.TempDir(), "hand")}
	bench.repo.git("clone", "--quiet", bench.repo.url(), hand.dir)

	b.Run("run", func(b *testing.B) {
		for range b.N {
			b.StopTimer()
			commit := change()
			b.StartTimer()
			bench.built("hello", bench.push("hello", commit, ""), 1)
		}
	})
	b.Run("by-hand", func(b *testing.B) {
		for range b.N {
			b.StopTimer()
			change()
			name := fmt.Sprintf("%s/by-hand:%d", bench.registry.Addr(), time.Now().UnixNano())
			b.StartTimer()
			hand.git("pull", "--quiet")
			_, err := bench.service.cfg.make(b.Context(), e, recipe{
				tree: hand.dir, build: pipeline.Build{Dockerfile: "Dockerfile", Context: "."}, name: name, created: commitTime, cacheID: name,
			}, io.Discard)
			if err != nil {
				b.Fatal(err)
			}
			if _, err := e.Push(b.Context(), name, engine.Credentials{}); err != nil {
				b.Fatal(err)
			}
			b.StopTimer()
			removeImage(b, e, name)
			b.StartTimer()
		}
	})
	b.Run("recognised", func(b *testing.B) {
		commit := change()
		bench.built("hello", bench.push("hello", commit, ""), 1)
		for range b.N {
			b.StopTimer()
			same := bench.repo.git("commit-tree", "-m", fmt.Sprint(time.Now().UnixNano()), "-p", commit, commit+"^{tree}")
			bench.repo.git("update-ref", "refs/heads/main", same)
			b.StartTimer()
			bench.built("hello", bench.push("hello", same, ""), 1)
		}
	})
}
