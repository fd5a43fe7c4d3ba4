// Package screen puts words on a terminal or into a pipe: colour, widths, tables, human times, the
// picture of a run, and a block of lines that is drawn over itself.
//
// It guarantees that a pipe gets plain text without a single escape sequence, that nothing which came
// from elsewhere can steer the terminal, and that what it prints depends on its arguments alone. It
// asks nobody for data.
package screen

import (
	"io"
	"os"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/term"
)

// Screen is where a command prints. The zero value is a pipe of no width that discards everything.
type Screen struct {
	Out      io.Writer
	Width    int  // columns; 0: not a terminal, lines may be as long as they like
	Terminal bool // redrawing makes sense
	Colour   bool
}

// narrowest is the width below which nothing is laid out any more.
const narrowest = 40

// Of returns the screen behind a file. NO_COLOR with any value, and TERM=dumb, switch colour off.
func Of(f *os.File) Screen {
	s := Screen{Out: f}
	if !term.IsTerminal(int(f.Fd())) {
		return s
	}
	s.Width = 80
	if w, _, err := term.GetSize(int(f.Fd())); err == nil && w > 0 {
		s.Width = max(w, narrowest)
	}
	dumb := os.Getenv("TERM") == "dumb"
	s.Terminal = !dumb
	s.Colour = os.Getenv("NO_COLOR") == "" && !dumb
	return s
}

// Style is how a piece of text looks.
type Style string

// The styles. Plain is the terminal's own.
const (
	Plain  Style = ""
	Dim    Style = "2"
	Bold   Style = "1"
	Red    Style = "31"
	Green  Style = "32"
	Yellow Style = "33"
	Blue   Style = "34"
	Purple Style = "35"
)

// Paint returns text in a style, or as it is where there is no colour.
func (s Screen) Paint(style Style, text string) string {
	if !s.Colour || style == Plain || text == "" {
		return text
	}
	return "\x1b[" + string(style) + "m" + text + "\x1b[0m"
}

// Clean makes text that came from elsewhere safe to print: control characters other than line feed and
// tab, and characters that turn the direction of writing, become "·".
func Clean(text string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t':
			return r
		case r == utf8.RuneError, unicode.IsControl(r), unicode.Is(unicode.Bidi_Control, r):
			return '·'
		}
		return r
	}, text)
}

// Line is Clean on one line.
func Line(text string) string {
	return strings.Join(strings.Fields(Clean(text)), " ")
}

// width is how many columns text takes.
func width(text string) int { return utf8.RuneCountInString(text) }

// Cut shortens text to n columns, with "…" where something is missing. n of 0 means any length.
func Cut(text string, n int) string {
	if n <= 0 || width(text) <= n {
		return text
	}
	runes := []rune(text)
	return string(runes[:max(0, n-1)]) + "…"
}

// Wrap breaks text into lines of at most n columns, at spaces where there are some. Line feeds stay. n
// of 0 means any length.
func Wrap(text string, n int) []string {
	var lines []string
	for _, paragraph := range strings.Split(strings.TrimRight(Clean(text), "\n"), "\n") {
		line := ""
		for _, word := range strings.Fields(paragraph) {
			switch {
			case line == "":
				line = word
			case n > 0 && width(line)+1+width(word) > n:
				lines = append(lines, line)
				line = word
			default:
				line += " " + word
			}
		}
		lines = append(lines, line)
	}
	return lines
}
