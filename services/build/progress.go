package build

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	bkclient "github.com/moby/buildkit/client"
	"github.com/opencontainers/go-digest"
)

// Bounds on what a build may say.
const (
	maxLogLine = 4 << 10 // bytes; the rest of the line is left out
	maxLogTail = 30      // lines kept of a step, for the event that says why it failed
)

// progress writes what BuildKit reports as lines, live and in the order in which it is reported:
//
//	#4 [2/3] RUN make
//	#4 0.812 gcc -c main.c
//	#4 DONE 1.1s
//
// It keeps the end of each step's output. It is not safe for concurrent use.
type progress struct {
	out   io.Writer
	left  int64 // bytes that may still be written
	steps map[digest.Digest]*step
	count int
}

// step is one vertex of the build graph.
type step struct {
	number   int
	name     string
	started  time.Time
	reported bool // its end was written
	failure  string
	partial  map[int][]byte // by stream: the beginning of a line
	tail     []string
}

func newProgress(out io.Writer, max int64) *progress {
	return &progress{out: out, left: max, steps: map[digest.Digest]*step{}}
}

// follow writes every status until the channel is closed.
func (p *progress) follow(statuses <-chan *bkclient.SolveStatus) {
	for s := range statuses {
		for _, v := range s.Vertexes {
			p.begin(v)
		}
		for _, v := range s.Statuses {
			if st := p.steps[v.Vertex]; st != nil && v.Completed != nil && v.ID != "" {
				p.line("#%d %s done", st.number, clean(v.ID))
			}
		}
		for _, l := range s.Logs {
			p.log(l)
		}
		for _, w := range s.Warnings {
			p.line("warning: %s", clean(string(w.Short)))
		}
		for _, v := range s.Vertexes {
			p.end(v)
		}
	}
}

func (p *progress) begin(v *bkclient.Vertex) {
	st := p.steps[v.Digest]
	if st == nil {
		st = &step{name: clean(v.Name), partial: map[int][]byte{}}
		p.steps[v.Digest] = st
	}
	if v.Started != nil && st.number == 0 || v.Cached && st.number == 0 {
		p.count++
		st.number = p.count
		if v.Started != nil {
			st.started = *v.Started
		}
		p.line("#%d %s", st.number, st.name)
	}
}

func (p *progress) end(v *bkclient.Vertex) {
	st := p.steps[v.Digest]
	if st.number == 0 || v.Completed == nil && !v.Cached || st.reported {
		return
	}
	st.reported = true
	p.flush(st)
	switch {
	case v.Error != "":
		st.failure = v.Error
		p.line("#%d ERROR: %s", st.number, clean(v.Error))
	case v.Cached:
		p.line("#%d CACHED", st.number)
	default:
		p.line("#%d DONE %.1fs", st.number, v.Completed.Sub(st.started).Seconds())
	}
}

func (p *progress) log(l *bkclient.VertexLog) {
	st := p.steps[l.Vertex]
	if st == nil {
		return
	}
	data := append(st.partial[l.Stream], l.Data...)
	for {
		i := slices.Index(data, '\n')
		if i < 0 {
			break
		}
		p.say(st, l.Timestamp, data[:i])
		data = data[i+1:]
	}
	if len(data) > maxLogLine {
		p.say(st, l.Timestamp, data)
		data = nil
	}
	st.partial[l.Stream] = slices.Clone(data)
}

// flush writes what a step said without ending the line.
func (p *progress) flush(st *step) {
	for stream, data := range st.partial {
		if len(data) > 0 {
			p.say(st, time.Time{}, data)
		}
		delete(st.partial, stream)
	}
}

func (p *progress) say(st *step, at time.Time, line []byte) {
	text := clean(string(line))
	st.tail = append(st.tail, text)
	if len(st.tail) > maxLogTail {
		st.tail = st.tail[1:]
	}
	since := 0.0
	if !at.IsZero() && !st.started.IsZero() {
		since = max(0, at.Sub(st.started).Seconds())
	}
	p.line("#%d %.3f %s", st.number, since, text)
}

// line writes one line, unless the build has said too much already.
func (p *progress) line(format string, args ...any) {
	if p.left <= 0 {
		return
	}
	text := fmt.Sprintf(format, args...) + "\n"
	if p.left -= int64(len(text)); p.left <= 0 {
		text = "… the log is full; the build goes on without it …\n"
	}
	io.WriteString(p.out, text) // the ledger's log writer never fails; nothing could be done here
}

// failed returns the step that ended the build: the first whose error is its own, rather than that of
// another which was stopped with it.
func (p *progress) failed() *step {
	var found *step
	for _, st := range p.steps {
		p.flush(st)
		if st.failure == "" || strings.Contains(st.failure, "context canceled") {
			continue
		}
		if found == nil || st.number < found.number {
			found = st
		}
	}
	return found
}

// running returns the step that began last and has not ended.
func (p *progress) running() *step {
	var found *step
	for _, st := range p.steps {
		ended := st.reported && !strings.Contains(st.failure, "context canceled")
		if st.number > 0 && !ended && (found == nil || st.number > found.number) {
			found = st
		}
	}
	return found
}

// clean makes a line of a build's output fit to be shown on a terminal or a page: valid UTF-8 without
// control characters, and of what a progress bar overwrote only the last.
func clean(line string) string {
	line = strings.TrimRight(line, "\r\n")
	if i := strings.LastIndexByte(line, '\r'); i >= 0 {
		line = line[i+1:]
	}
	var b strings.Builder
	for i := 0; i < len(line) && b.Len() < maxLogLine; {
		if n := escapeLength(line[i:]); n > 0 {
			i += n
			continue
		}
		r, size := utf8.DecodeRuneInString(line[i:])
		i += size
		switch {
		case r == '\t':
			b.WriteByte('\t')
		case r == utf8.RuneError && size == 1:
			b.WriteRune(utf8.RuneError)
		case r < ' ' || r >= 0x7f && r < 0xa0 || r >= 0x202a && r <= 0x202e || r >= 0x2066 && r <= 0x2069:
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

// escapeLength returns the length of the terminal escape sequence that s begins with, or 0.
func escapeLength(s string) int {
	if len(s) < 2 || s[0] != 0x1b {
		return 0
	}
	switch s[1] {
	case '[': // CSI: parameters, then one final byte
		for i := 2; i < len(s); i++ {
			if s[i] >= 0x40 && s[i] <= 0x7e {
				return i + 1
			}
		}
		return len(s)
	case ']': // OSC: to BEL or ST
		for i := 2; i < len(s); i++ {
			if s[i] == 0x07 {
				return i + 1
			}
			if s[i] == 0x1b && i+1 < len(s) && s[i+1] == '\\' {
				return i + 2
			}
		}
		return len(s)
	}
	return 2
}
