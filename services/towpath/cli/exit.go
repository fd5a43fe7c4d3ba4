package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"towpath.dev/services/towpath/client"
	"towpath.dev/services/towpath/screen"
)

// The exit codes of every command.
const (
	exitDone     = 0
	exitFailed   = 1
	exitUsage    = 2
	exitNotFound = 3
	exitRefused  = 4
	exitTimedOut = 5
)

// usageError is a command that was typed wrongly.
type usageError struct{ err error }

func (e usageError) Error() string { return e.err.Error() }
func (e usageError) Unwrap() error { return e.err }

func usage(format string, a ...any) error { return usageError{fmt.Errorf(format, a...)} }

// codeError ends the program with a code after what there was to say was said.
type codeError int

func (e codeError) Error() string { return fmt.Sprintf("exit code %d", int(e)) }

// exitCode is the code that an error ends the program with.
func exitCode(err error) int {
	var code codeError
	var wrong usageError
	var api *client.Error
	switch {
	case err == nil:
		return exitDone
	case errors.As(err, &code):
		return int(code)
	case errors.As(err, &wrong):
		return exitUsage
	case errors.As(err, &api):
		return map[client.Kind]int{
			client.Failed: exitFailed, client.Usage: exitUsage, client.NotFound: exitNotFound,
			client.Refused: exitRefused, client.TimedOut: exitTimedOut,
		}[api.Kind()]
	case errors.Is(err, context.DeadlineExceeded):
		return exitTimedOut
	}
	return exitFailed
}

// describesAPI is what the gateway has a program do that asked wrongly. People have --help.
const describesAPI = "GET /openapi.json describes it"

// report says what went wrong: what failed, on what, why, and what to do next.
func report(s screen.Screen, command string, err error) {
	var code codeError
	if errors.As(err, &code) {
		return
	}
	sign := s.Paint(screen.Red, "error:")
	var wrong usageError
	if errors.As(err, &wrong) {
		fmt.Fprintf(s.Out, "%s %s\n  → %s --help\n", sign, screen.Clean(err.Error()), command)
		return
	}
	var api *client.Error
	if !errors.As(err, &api) {
		fmt.Fprintf(s.Out, "%s %s\n", sign, indented(err.Error()))
		return
	}
	text := api.What
	if api.On != "" {
		text += " " + api.On
	}
	if api.Why != "" {
		text += ": " + api.Why
	}
	fmt.Fprintf(s.Out, "%s %s\n", sign, indented(text))
	if api.Do == describesAPI {
		fmt.Fprintf(s.Out, "  → %s --help\n", command)
	} else if api.Do != "" {
		fmt.Fprintf(s.Out, "  → %s\n", indented(api.Do))
	}
}

// indented puts the lines after the first under it.
func indented(text string) string {
	return strings.ReplaceAll(strings.TrimRight(screen.Clean(text), "\n"), "\n", "\n  ")
}
