package engine

import (
	"context"
	"io"
	"strconv"
	"strings"
	"sync"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/pkg/stdcopy"
)

// tail keeps the last bytes that were written to it. Safe for concurrent use.
type tail struct {
	mu    sync.Mutex
	limit int
	kept  []byte
	cut   bool
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.kept = append(t.kept, p...)
	if over := len(t.kept) - t.limit; over > 0 {
		t.kept = append(t.kept[:0], t.kept[over:]...)
		t.cut = true
	}
	return len(p), nil
}

// text returns what was kept as valid UTF-8, and whether anything before it was dropped.
func (t *tail) text() (string, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.ToValidUTF8(string(t.kept), "\uFFFD"), t.cut
}

// LogTail returns the last lines of a container's output, standard output and error in the order that the
// engine kept them, at most limit bytes (the last ones).
func (e *Engine) LogTail(ctx context.Context, id string, lines, limit int) (string, error) {
	text, _, err := e.logs(ctx, id, lines, limit)
	return text, err
}

func (e *Engine) logs(ctx context.Context, id string, lines, limit int) (text string, cut bool, err error) {
	err = e.do(ctx, readBound, "reading the output of container "+id, func(ctx context.Context) error {
		stream, err := e.api.ContainerLogs(ctx, id, container.LogsOptions{
			ShowStdout: true, ShowStderr: true, Tail: strconv.Itoa(lines),
		})
		if err != nil {
			return err
		}
		defer stream.Close()
		out := &tail{limit: limit}
		if _, err = stdcopy.StdCopy(out, out, stream); err != nil && err != io.EOF {
			return err
		}
		text, cut = out.text()
		return nil
	})
	return text, cut, err
}
