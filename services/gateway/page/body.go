package page

import (
	"fmt"
	"strings"
	"time"

	"towpath.dev/events"
	"towpath.dev/pkg/ledger/fold"
	"towpath.dev/services/gateway/view"
)

type indexBody struct{ Runs []row }

// row is one run in a list.
type row struct {
	view.Run
	Path   string // of its page
	Mark   string
	Commit string
	Where  string
	Ago    string
	When   string
}

func (p *Pages) row(run view.Run, now time.Time) row {
	return row{
		Run: run, Path: p.RunPath(events.Slug(run.App), run.Number), Mark: mark(run.Status), Commit: short(run.Commit),
		Where: where(run), Ago: ago(now.Sub(run.Created)), When: run.Created.UTC().Format(time.RFC3339),
	}
}

// runBody is everything on a run's page.
type runBody struct {
	row
	Digest string // short
	Took   string
	Since  string // RFC 3339 where the run goes on
	Ended  bool
	Nodes  []node
	Stages []stage
	Logs   []log
	Part   string // path of the part that changes
}

// node is one stop of the picture: build, vet, or an environment.
type node struct {
	Name, Mark, Took, Since, Who, Link string
	Status                             fold.Status
}

type stage struct {
	view.Stage
	Mark, Took, Since, When, Clock string
}

type log struct{ Name, URL string }

func (p *Pages) body(run view.Run, endpoints map[string]string, now time.Time) runBody {
	b := runBody{row: p.row(run, now), Digest: short(strings.TrimPrefix(run.Digest, "sha256:")), Ended: run.Finished != nil}
	b.Part = strings.Replace(b.Path, "?", "/part?", 1)
	b.Took, b.Since = span(&run.Created, run.Finished, now)
	for _, s := range run.Stages {
		one := stage{Stage: s, Mark: mark(s.Status)}
		one.Took, one.Since = span(s.Started, s.Finished, now)
		if s.Started != nil {
			one.When, one.Clock = s.Started.UTC().Format(time.RFC3339), s.Started.UTC().Format("2 Jan 15:04:05")
		}
		if one.Detail == run.Detail {
			one.Detail = "" // it stands above
		}
		b.Stages = append(b.Stages, one)
		if s.Status != fold.Skipped {
			b.Logs = append(b.Logs, log{strings.TrimSpace(s.Stage + " " + s.Env), p.logURL(run, s)})
		}
	}
	b.Nodes = nodes(run, endpoints, now)
	return b
}

// nodes joins what happens in one environment into one stop.
func nodes(run view.Run, endpoints map[string]string, now time.Time) []node {
	var list []node
	for i, s := range run.Stages {
		n := node{Name: s.Stage, Status: s.Status, Who: who(s)}
		n.Took, n.Since = span(s.Started, s.Finished, now)
		if s.Stage == fold.StageVerify {
			continue
		}
		if s.Env != "" {
			n.Name = s.Env
		}
		if s.Stage == fold.StagePromote && s.Status == fold.Done && i+1 < len(run.Stages) {
			verify := run.Stages[i+1]
			n.Status, n.Who = verify.Status, who(verify)
			if n.Status == fold.Pending || n.Status == fold.Queued {
				n.Status = fold.Running
			}
			n.Took, n.Since = span(s.Started, verify.Finished, now)
			if n.Status == fold.Done {
				n.Link = endpoints[s.Env]
			}
		}
		n.Mark = mark(n.Status)
		list = append(list, n)
	}
	return list
}

// who has to act at a stage, or that it will be blocked.
func who(s view.Stage) string {
	switch {
	case s.For != "":
		return "for " + s.For
	case s.Blocked():
		return "will be blocked"
	}
	return ""
}

// mark is a status as a sign. It never stands alone: the word is beside it.
func mark(status fold.Status) string {
	switch status {
	case fold.Done:
		return "✓"
	case fold.Running:
		return "●"
	case fold.Waiting:
		return "◷"
	case fold.Queued:
		return "◌"
	case fold.Stuck:
		return "!"
	case fold.Failed:
		return "✗"
	case fold.Refused:
		return "⊘"
	case fold.Superseded, fold.CancelledRun:
		return "–"
	case fold.Skipped:
		return "↷"
	}
	return "○"
}

// where says at which stage a run is.
func where(run view.Run) string {
	for _, s := range run.Stages {
		switch s.Status {
		case fold.Done, fold.Skipped:
			continue
		}
		return strings.TrimSpace(s.Stage + " " + s.Env)
	}
	return "through"
}

// span is how long something took, or has taken; then since is when it began.
func span(from, to *time.Time, now time.Time) (took, since string) {
	switch {
	case from == nil:
		return "", ""
	case to != nil:
		return human(to.Sub(*from)), ""
	}
	return human(now.Sub(*from)), from.UTC().Format(time.RFC3339)
}

// human is a duration in two units at most.
func human(d time.Duration) string {
	switch d = max(d, 0); {
	case d < time.Second:
		return fmt.Sprintf("%dms", d.Milliseconds())
	case d < 10*time.Second:
		return fmt.Sprintf("%.1fs", d.Seconds())
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm%02ds", int(d.Minutes()), int(d.Seconds())%60)
	}
	return fmt.Sprintf("%dh%02dm", int(d.Hours()), int(d.Minutes())%60)
}

func ago(d time.Duration) string {
	if d < 0 {
		d = 0
	}
	if d >= 48*time.Hour {
		return fmt.Sprintf("%d days ago", int(d.Hours()/24))
	}
	return human(d.Truncate(time.Second)) + " ago"
}

// short is a commit or digest as people are shown it.
func short(hex string) string { return hex[:min(12, len(hex))] }
