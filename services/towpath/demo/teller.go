package demo

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"towpath.dev/services/gateway/view"
	"towpath.dev/services/towpath/screen"
)

// margin stands in front of what belongs to a heading.
const margin = "   "

// teller prints the demo, and keeps which claims did not hold.
type teller struct {
	s      screen.Screen
	act    int
	broken []string
	told   map[int]*screen.Progress // by run: what was said of it
	spaced bool                     // an empty line is above
}

func newTeller(s screen.Screen) *teller { return &teller{s: s, told: map[int]*screen.Progress{}} }

func (t *teller) line(text string) {
	fmt.Fprintln(t.s.Out, strings.TrimRight(text, " "))
	t.spaced = text == ""
}

// gap leaves one empty line, however often it is asked for.
func (t *teller) gap() {
	if !t.spaced {
		t.line("")
	}
}

func (t *teller) title(dir string) {
	t.line(t.s.Paint(screen.Bold, "Towpath: from git push to production"))
	for _, l := range screen.Wrap("Everything here is real: this machine's Docker Engine builds and runs it. It lives in "+dir+" and is removed at the end.", t.s.Width) {
		t.line(t.s.Paint(screen.Dim, l))
	}
}

func (t *teller) heading(text string) {
	t.gap()
	t.act++
	t.line(t.s.Paint(screen.Bold, fmt.Sprintf("%d  %s", t.act, text)))
	t.gap()
}

// command shows what is typed, broken as a shell would let one break it where it is long.
func (t *teller) command(words ...string) {
	prompt := margin + t.s.Paint(screen.Dim, "$ ")
	room := t.s.Width - len(margin) - len("$ ") - len(" \\")
	line := ""
	for _, w := range words {
		if w == "" || strings.ContainsAny(w, " ;'\"$&|<>()") {
			w = "'" + w + "'"
		}
		switch {
		case line == "":
			line = w
		case t.s.Width > 0 && len(line)+1+len(w) > room:
			t.line(prompt + t.s.Paint(screen.Bold, line) + " \\")
			prompt, line = margin+"  ", "  "+w
		default:
			line += " " + w
		}
	}
	t.line(prompt + t.s.Paint(screen.Bold, line))
}

// holds prints a claim that was found true.
func (t *teller) holds(format string, a ...any) { t.check(nil, format, a...) }

// check prints a claim: as true, or with what contradicts it.
func (t *teller) check(err error, format string, a ...any) {
	claim := screen.Line(fmt.Sprintf(format, a...))
	if err == nil {
		t.line(margin + t.s.Paint(screen.Green, "✓") + " " + claim)
		return
	}
	t.broken = append(t.broken, claim)
	t.line(margin + t.s.Paint(screen.Red, "✗ "+claim))
	for _, l := range screen.Wrap(err.Error(), max(0, t.s.Width-5)) {
		t.line(margin + "  " + l)
	}
}

// failed is the claims that did not hold, or nil.
func (t *teller) failed() error {
	if len(t.broken) == 0 {
		return nil
	}
	return errors.New("the demo did not hold what it claims: " + strings.Join(t.broken, "; "))
}

// view draws a run under the heading.
func (t *teller) view(number int) *screen.View {
	inside := t.s
	if inside.Width > 0 {
		inside.Width -= len(margin)
	}
	if t.told[number] == nil {
		t.told[number] = inside.NewProgress()
	}
	draw := func(r view.Run, now time.Time) []string {
		lines := inside.Run(r, now)
		for i, l := range lines {
			if l != "" {
				lines[i] = margin + l
			}
		}
		return lines
	}
	t.spaced = false
	whole := t.s
	if !whole.Terminal {
		whole.Out = newIndented(t.s, margin)
	}
	return whole.NewView(draw, t.told[number])
}

// output is where a command's words go.
func (t *teller) output() *indented {
	t.spaced = false
	return newIndented(t.s, margin)
}

// indented puts a margin in front of each line, and breaks long ones at words.
type indented struct {
	s      screen.Screen
	margin string
	mu     sync.Mutex
	rest   []byte
}

func newIndented(s screen.Screen, margin string) *indented { return &indented{s: s, margin: margin} }

func (i *indented) Write(data []byte) (int, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.rest = append(i.rest, data...)
	for {
		line, rest, found := bytes.Cut(i.rest, []byte("\n"))
		if !found {
			return len(data), nil
		}
		if err := i.print(string(line)); err != nil {
			return 0, err
		}
		i.rest = rest
	}
}

// Close prints what had no line feed at its end.
func (i *indented) Close() error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if len(i.rest) == 0 {
		return nil
	}
	line := string(i.rest)
	i.rest = nil
	return i.print(line)
}

// print takes git's own way of erasing the rest of a line out.
func (i *indented) print(line string) error {
	line = strings.TrimRight(screen.Clean(strings.ReplaceAll(line, "\x1b[K", "")), " \r·")
	for _, part := range i.broken(line) {
		if part != "" {
			part = i.margin + part
		}
		if _, err := fmt.Fprintln(i.s.Out, part); err != nil {
			return err
		}
	}
	return nil
}

// broken breaks a line that does not fit at a space, and keeps the spaces that it has elsewhere.
func (i *indented) broken(line string) []string {
	room := i.s.Width - len(i.margin)
	var parts []string
	for i.s.Width > 0 && utf8.RuneCountInString(line) > room {
		runes := []rune(line)
		at := strings.LastIndex(string(runes[:room]), " ")
		if at <= 0 {
			break
		}
		parts = append(parts, line[:at])
		line = "      " + strings.TrimLeft(line[at:], " ")
	}
	return append(parts, line)
}
