package deploy

import (
	"fmt"
	"strings"

	"towpath.dev/events"
)

// Reason says in what way a version is unhealthy.
type Reason string

// The reasons.
const (
	Exited       Reason = "exited"         // its process ended
	NotHealthy   Reason = "not healthy"    // it ran and never became healthy
	WrongPort    Reason = "wrong port"     // it listens, but not on its port
	NotStartable Reason = "not startable"  // its command cannot be run
	NoPlatform   Reason = "wrong platform" // the image is not for the engine's platform
)

// logLines is how many lines of output an error holds at most.
const logLines = 30

// UnhealthyError says that a version does not work in this environment, on an engine that does.
type UnhealthyError struct {
	Reason Reason
	On     string   // hello in dev, or the container
	Why    string   // what was seen
	Do     string   // what the author may do
	Log    []string // the last lines that the app printed, redacted
}

func (e *UnhealthyError) Error() string {
	return "starting " + e.On + ": " + e.Why + "; " + e.Do + tailText(e.Log)
}

// Trouble puts the error into the words of events.
func (e *UnhealthyError) Trouble() events.Trouble {
	return events.Trouble{What: "starting the new version", On: e.On, Why: e.Why, Do: e.Do, Log: e.Log}
}

// ReleaseError says that the release command did not succeed. It is not run a second time in its slot.
type ReleaseError struct {
	On      string
	Command string
	Why     string
	Log     []string
}

func (e *ReleaseError) Error() string {
	return fmt.Sprintf("release command %s of %s: %s; mend what it says, then replay%s", e.Command, e.On, e.Why, tailText(e.Log))
}

// Trouble puts the error into the words of events.
func (e *ReleaseError) Trouble() events.Trouble {
	return events.Trouble{
		What: "running the release command " + e.Command, On: e.On, Why: e.Why,
		Do: "mend what it says, then replay; it runs again with the next attempt only", Log: e.Log,
	}
}

func tailText(log []string) string {
	if len(log) == 0 {
		return ""
	}
	return "\n  " + strings.Join(log, "\n  ")
}

// lines splits output into its last lines, none of them long.
func lines(text string) []string {
	var out []string
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\r\n")
		if len(line) > 500 {
			line = strings.ToValidUTF8(line[:500], "") + "…"
		}
		out = append(out, line)
	}
	return out[max(0, len(out)-logLines):]
}
