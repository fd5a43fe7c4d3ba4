package screen

import (
	"fmt"
	"strings"
)

// Cell is one field of a table.
type Cell struct {
	Text  string
	Style Style
}

// Table is rows under a heading. The last column takes what room is left.
type Table struct {
	Margin  string // in front of each line
	Heading []string
	Rows    [][]Cell
}

// Add appends a row.
func (t *Table) Add(cells ...Cell) { t.Rows = append(t.Rows, cells) }

// Text returns a cell in the terminal's own style. What it holds is made safe for one line.
func Text(format string, a ...any) Cell { return Cell{Text: Line(fmt.Sprintf(format, a...))} }

// In returns a cell in a style.
func In(style Style, text string) Cell { return Cell{Text: Line(text), Style: style} }

// Table prints the table, or nothing at all where it has no rows.
func (s Screen) Table(t Table) {
	if len(t.Rows) == 0 {
		return
	}
	widths := make([]int, len(t.Heading))
	for i, h := range t.Heading {
		widths[i] = width(h)
	}
	for _, row := range t.Rows {
		for i, c := range row {
			widths[i] = max(widths[i], width(c.Text))
		}
	}
	heading := make([]Cell, len(t.Heading))
	for i, h := range t.Heading {
		heading[i] = Cell{h, Dim}
	}
	for _, row := range append([][]Cell{heading}, t.Rows...) {
		fmt.Fprintln(s.Out, t.Margin+s.row(row, widths, width(t.Margin)))
	}
}

// row is one line, with what is used of it already.
func (s Screen) row(row []Cell, widths []int, used int) string {
	var b strings.Builder
	for i, c := range row {
		text := c.Text
		last := i == len(row)-1
		if last && s.Width > 0 {
			text = Cut(text, max(12, s.Width-used))
		}
		b.WriteString(s.Paint(c.Style, text))
		if !last {
			b.WriteString(strings.Repeat(" ", widths[i]-width(text)+2))
			used += widths[i] + 2
		}
	}
	return strings.TrimRight(b.String(), " ")
}
