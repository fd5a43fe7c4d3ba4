package screen

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"towpath.dev/pkg/ledger/fold"
	"towpath.dev/services/gateway/view"
)

// Mark is the sign and the style of a status.
func Mark(s fold.Status) (string, Style) {
	switch s {
	case fold.Done:
		return "✓", Green
	case fold.Running:
		return "●", Blue
	case fold.Waiting:
		return "◷", Yellow
	case fold.Queued:
		return "◌", Yellow
	case fold.Stuck:
		return "!", Purple
	case fold.Failed:
		return "✗", Red
	case fold.Refused:
		return "⊘", Red
	case fold.Superseded, fold.CancelledRun:
		return "–", Dim
	case fold.Skipped:
		return "↷", Dim
	}
	return "○", Dim
}

// node is one stop of the picture: build, vet, or an environment with its promotion and verification.
type node struct {
	name   string
	status fold.Status
	took   string
	under  string // for whom it waits
}

// nodes joins what happens in one environment.
func nodes(r view.Run, now time.Time) []node {
	var list []node
	for _, s := range r.Stages {
		switch s.Stage {
		case fold.StageVerify:
			if n := len(list); n > 0 && list[n-1].name == s.Env {
				list[n-1] = environment(r, list[n-1], s, now)
				continue
			}
			fallthrough
		default:
			n := node{name: s.Stage, status: s.Status, took: took(s, s, now), under: under(s)}
			if s.Env != "" {
				n.name = s.Env
			}
			list = append(list, n)
		}
	}
	return list
}

// environment is the stop of a promotion, given what its verification says.
func environment(r view.Run, n node, verify view.Stage, now time.Time) node {
	promote, _ := r.Stage(fold.StagePromote, verify.Env)
	if promote.Status != fold.Done {
		return n
	}
	n.status = verify.Status
	if verify.Status == fold.Pending || verify.Status == fold.Queued {
		n.status = fold.Running
	}
	n.took = took(promote, verify, now)
	n.under = under(verify)
	return n
}

// took is the time from first's start to last's end.
func took(first, last view.Stage, now time.Time) string {
	if first.Started == nil {
		return ""
	}
	end := now
	if last.Finished != nil {
		end = *last.Finished
	}
	return Took(end.Sub(*first.Started))
}

func under(s view.Stage) string {
	switch s.Status {
	case fold.Waiting, fold.Queued:
		if s.For != "" {
			return "for " + s.For
		}
	case fold.Stuck:
		return "for an operator"
	case fold.Failed:
		return "for the author"
	}
	if s.Blocked() {
		return "will be blocked"
	}
	return ""
}

// link stands between two stops.
const link = " ─── "

// Picture draws the path of a run: each stop with its sign, how long it took, and for whom it waits.
//
//	✓ build ─── ✓ vet ─── ✓ dev ─── ✓ qa ─── ◷ prod
//	  1.4s        0.6s      1.9s      2.1s     for an approver
func (s Screen) Picture(r view.Run, now time.Time) []string {
	var lines []string
	var row pictureRow
	all := nodes(r, now)
	for i, n := range all {
		last := i == len(all)-1
		if s.Width > 0 && !row.empty() && row.columns+n.columns(last) > s.Width {
			lines = append(lines, row.lines()...)
			row = pictureRow{}
		}
		row.add(s, n, last)
	}
	return append(lines, row.lines()...)
}

// narrowestNode keeps the stops from moving while their times grow.
const narrowestNode = 5

// columns is how many the node takes, its link to the next included.
func (n node) columns(last bool) int {
	wide := max(width(n.name), width(n.took), width(n.under), narrowestNode) + 2
	if !last {
		wide += width(link)
	}
	return wide
}

// pictureRow is the lines of one row of stops.
type pictureRow struct {
	path, times, who strings.Builder
	columns          int
}

func (row *pictureRow) empty() bool { return row.columns == 0 }

func (row *pictureRow) add(s Screen, n node, last bool) {
	if row.empty() {
		for _, b := range []*strings.Builder{&row.path, &row.times, &row.who} {
			b.WriteString("  ")
		}
		row.columns = 2
	}
	wide := n.columns(last)
	sign, style := Mark(n.status)
	row.path.WriteString(s.Paint(style, sign) + " " + s.name(n))
	if !last {
		row.path.WriteString(" " + s.Paint(Dim, strings.Repeat("─", wide-4-width(n.name))) + " ")
	}
	row.times.WriteString("  " + s.Paint(Dim, n.took) + strings.Repeat(" ", wide-2-width(n.took)))
	row.who.WriteString("  " + s.Paint(style, n.under) + strings.Repeat(" ", wide-2-width(n.under)))
	row.columns += wide
}

func (row *pictureRow) lines() []string {
	var lines []string
	for _, b := range []*strings.Builder{&row.path, &row.times, &row.who} {
		if line := strings.TrimRight(b.String(), " "); line != "" {
			lines = append(lines, line)
		}
	}
	return lines
}

func (s Screen) name(n node) string {
	switch n.status {
	case fold.Pending, fold.Skipped, fold.Superseded, fold.CancelledRun:
		return s.Paint(Dim, n.name)
	}
	return n.name
}

// Run is what `towpath show` prints of a run: a line about it, the picture, and what somebody has to
// know or do.
func (s Screen) Run(r view.Run, now time.Time) []string {
	lines := []string{s.headline(r, now), ""}
	lines = append(lines, s.Picture(r, now)...)
	for _, note := range notes(r) {
		lines = append(lines, "")
		lines = append(lines, s.note(note)...)
	}
	return lines
}

func (s Screen) headline(r view.Run, now time.Time) string {
	_, style := Mark(r.Status)
	status := string(r.Status)
	if r.For != "" && (r.Status == fold.Waiting || r.Status == fold.Queued) {
		status += " for " + r.For
	}
	parts := []string{s.Paint(Bold, r.Run), s.Paint(style, Line(status))}
	if r.Commit != "" {
		parts = append(parts, "commit "+short(r.Commit, 7))
	}
	if r.Digest != "" {
		parts = append(parts, "image "+short(strings.TrimPrefix(r.Digest, "sha256:"), 12))
	}
	return strings.Join(append(parts, s.Paint(Dim, Ago(now, r.Created))), "  ")
}

func short(text string, n int) string { return text[:min(n, len(text))] }

// Digest is a digest for people: "sha256:" and 12 digits.
func Digest(digest string) string {
	hex := strings.TrimPrefix(digest, "sha256:")
	if hex == digest {
		return digest
	}
	return "sha256:" + short(hex, 12)
}

// note is something that somebody has to know about a stage.
type note struct {
	title   string
	style   Style
	detail  string
	command string
}

func notes(r view.Run) []note {
	var list []note
	for _, st := range r.Stages {
		switch st.Status {
		case fold.Stuck, fold.Failed, fold.Refused, fold.Waiting, fold.Queued:
		case fold.Done, fold.Running:
			if st.Detail == "" && st.Replay == nil {
				continue
			}
		default:
			if st.Skipped == nil && !st.Blocked() {
				continue
			}
		}
		_, style := Mark(st.Status)
		if st.Status == fold.Done {
			style = Dim
		}
		list = append(list, note{title(st), style, strings.TrimPrefix(st.Detail+replayed(st), "\n"), st.Command})
	}
	told := slices.ContainsFunc(list, func(n note) bool { return strings.HasPrefix(n.detail, r.Detail) })
	if !told && (r.Detail != "" || r.Command != "") {
		_, style := Mark(r.Status)
		list = append(list, note{string(r.Status), style, r.Detail, r.Command})
	}
	return list
}

// replayed says, on a line of its own, who asked for a stage's present attempt, and why.
func replayed(st view.Stage) string {
	if st.Replay == nil {
		return ""
	}
	text := fmt.Sprintf("\nattempt %d was asked for by %s", st.Attempt, st.Replay.Actor)
	if st.Replay.Reason != "" {
		text += ": " + st.Replay.Reason
	}
	return text
}

// title says what is up with a stage: "qa promote: stuck, an operator acts (attempt 2)".
func title(st view.Stage) string {
	text := Place(st) + ": " + string(st.Status)
	switch st.Status {
	case fold.Waiting, fold.Queued:
		if st.For != "" {
			text += " for " + st.For
		}
	case fold.Stuck:
		text += ", an operator acts"
	case fold.Failed:
		text += ", the author acts"
	}
	if st.Attempt > 1 {
		text += fmt.Sprintf(" (attempt %d)", st.Attempt)
	}
	return text
}

// Place names a stage of a run: "build", "qa promote".
func Place(st view.Stage) string {
	if st.Env == "" {
		return st.Stage
	}
	return st.Env + " " + st.Stage
}

func (s Screen) note(n note) []string {
	room := 0
	if s.Width > 0 {
		room = s.Width - 4
	}
	var lines []string
	for _, l := range Wrap(n.title, room) {
		lines = append(lines, "  "+s.Paint(n.style, l))
	}
	if n.detail != "" {
		for _, l := range Wrap(n.detail, room) {
			lines = append(lines, strings.TrimRight("    "+l, " "))
		}
	}
	if n.command != "" {
		lines = append(lines, "    → "+s.Paint(Bold, Line(n.command)))
	}
	return lines
}
