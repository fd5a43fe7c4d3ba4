package screen

import (
	"io"
	"strconv"
	"strings"
)

// Live is a block of lines that is drawn over itself on a terminal. On anything else it prints nothing:
// there, what changes is said line by line by whoever knows what is worth a line. It is for one
// goroutine.
type Live struct {
	s     Screen
	drawn int // lines that stand on the terminal
}

// NewLive returns a block that begins at the cursor, which stands at the start of a line.
func (s Screen) NewLive() *Live { return &Live{s: s} }

// Draw replaces the block.
func (l *Live) Draw(lines []string) {
	if !l.s.Terminal {
		return
	}
	var b strings.Builder
	l.rewind(&b)
	for _, line := range lines {
		b.WriteString(cutPainted(line, l.s.Width) + "\x1b[K\n")
	}
	b.WriteString("\x1b[J")
	l.drawn = len(lines)
	io.WriteString(l.s.Out, b.String())
}

// Clear removes the block.
func (l *Live) Clear() {
	if l.drawn == 0 {
		return
	}
	var b strings.Builder
	l.rewind(&b)
	b.WriteString("\x1b[J")
	io.WriteString(l.s.Out, b.String())
	l.drawn = 0
}

// Keep leaves the block where it is; the next Draw begins below it.
func (l *Live) Keep() { l.drawn = 0 }

// rewind goes back to the start of the block's first line.
func (l *Live) rewind(b *strings.Builder) {
	if l.drawn > 0 {
		b.WriteString("\x1b[" + strconv.Itoa(l.drawn) + "A\r")
	}
}

// cutPainted shortens a painted line to n columns, so that it never wraps.
func cutPainted(line string, n int) string {
	if n <= 0 {
		return line
	}
	var b strings.Builder
	columns, escape := 0, false
	for _, r := range line {
		switch {
		case r == '\x1b':
			escape = true
		case escape:
			escape = r != 'm'
		default:
			if columns == n {
				continue
			}
			columns++
		}
		b.WriteRune(r)
	}
	return b.String()
}
