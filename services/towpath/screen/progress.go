package screen

import (
	"time"

	"towpath.dev/pkg/ledger/fold"
	"towpath.dev/services/gateway/view"
)

// Progress turns a run, seen again and again, into one line for each thing that happened to it. It is
// for where a picture cannot be drawn over itself.
type Progress struct {
	s    Screen
	seen map[string]string // stage → what was said of it
}

// NewProgress returns a Progress that has said nothing yet.
func (s Screen) NewProgress() *Progress { return &Progress{s: s, seen: map[string]string{}} }

// Lines says what is new since the call before.
func (p *Progress) Lines(r view.Run, now time.Time) []string {
	var lines []string
	for _, st := range r.Stages {
		if st.Status == fold.Pending || st.Status == fold.Skipped {
			continue
		}
		text := title(st)
		if st.Status == fold.Done {
			text = Place(st) + " " + p.s.Paint(Dim, Took(st.Took(now)))
		}
		if p.seen[Place(st)] == text {
			continue
		}
		p.seen[Place(st)] = text
		sign, style := Mark(st.Status)
		lines = append(lines, "  "+p.s.Paint(style, sign)+" "+text)
		if st.Status == fold.Running || st.Status == fold.Done {
			continue
		}
		lines = append(lines, p.s.note(note{detail: st.Detail, command: st.Command})[1:]...)
	}
	return lines
}
