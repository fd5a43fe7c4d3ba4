// Package cli is the commands of `towpath`. Each reads its arguments, asks the gateway, and prints; what
// a command means is decided elsewhere.
//
// It guarantees the exit codes of exit.go, that lists have --json, that colour and redrawing are for
// terminals only, and that no secret is taken from the command line.
package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"towpath.dev/services/gateway/view"
	"towpath.dev/services/towpath/client"
	"towpath.dev/services/towpath/screen"
)

// program is what every command has at hand.
type program struct {
	in   *os.File
	out  screen.Screen
	err  screen.Screen
	data string // data folder of `towpath up`
}

// Main runs the command that args name, without the program's name, and returns the exit code. The
// first SIGINT or SIGTERM ends it in order, the second at once.
func Main(args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	go func() {
		<-ctx.Done()
		stop() // from now on a signal does what signals do
	}()
	return Run(ctx, args, os.Stdin, screen.Of(os.Stdout), screen.Of(os.Stderr))
}

// Run is Main with the files given.
func Run(ctx context.Context, args []string, in *os.File, out, errs screen.Screen) int {
	p := &program{in: in, out: out, err: errs}
	root := p.root()
	root.SetArgs(args)
	root.SetOut(out.Out)
	root.SetErr(errs.Out)
	command, err := root.ExecuteContextC(ctx)
	if err == nil {
		return exitDone
	}
	report(errs, command.CommandPath(), err)
	return exitCode(err)
}

// open returns the gateway that the environment and --data name.
func (p *program) open() (*client.Client, error) { return client.Open(p.data) }

// printJSON prints a value as indented JSON.
func (p *program) printJSON(value any) error {
	e := json.NewEncoder(p.out.Out)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(value)
}

// say prints a line.
func (p *program) say(format string, a ...any) {
	fmt.Fprintf(p.out.Out, format+"\n", a...)
}

// list prints what a list holds: as JSON, as a table, or what to do where it is empty.
func (p *program) list(asJSON bool, value any, table screen.Table, empty string) error {
	if asJSON {
		return p.printJSON(value)
	}
	if len(table.Rows) == 0 {
		p.say("%s", empty)
	}
	p.out.Table(table)
	return nil
}

func jsonFlag(c *cobra.Command, asJSON *bool) {
	c.Flags().BoolVar(asJSON, "json", false, "print JSON, with times in RFC 3339")
}

// runRef is "hello/3", or "hello" for its newest run.
type runRef struct {
	app    string
	number int // 0: the newest
}

func (r runRef) String() string {
	if r.number == 0 {
		return r.app
	}
	return r.app + "/" + strconv.Itoa(r.number)
}

func parseRun(text string) (runRef, error) {
	app, number, found := strings.Cut(text, "/")
	if app == "" {
		return runRef{}, usage("%q is not a run: it is written hello/3", text)
	}
	if !found {
		return runRef{app: app}, nil
	}
	n, err := strconv.Atoi(number)
	if err != nil || n < 1 {
		return runRef{}, usage("%q is not a run: it is written hello/3", text)
	}
	return runRef{app, n}, nil
}

// exactRun is parseRun where the newest run is too vague.
func exactRun(text string) (runRef, error) {
	ref, err := parseRun(text)
	if err == nil && ref.number == 0 {
		return ref, usage("%q names an app: say which run, such as %s/1 (towpath runs %s lists them)", text, text, text)
	}
	return ref, err
}

// find returns the run that a reference names.
func find(ctx context.Context, c *client.Client, ref runRef) (view.Run, error) {
	if ref.number > 0 {
		return c.Run(ctx, ref.app, ref.number)
	}
	runs, err := c.Runs(ctx, ref.app, "")
	if err != nil {
		return view.Run{}, err
	}
	var newest view.Run
	for _, r := range runs {
		if r.App == ref.app && r.Number > newest.Number {
			newest = r
		}
	}
	if newest.Number == 0 {
		return newest, &client.Error{
			What: "finding the newest run of", On: ref.app, Why: "it has none",
			Do: "towpath app list shows the apps; a push starts a run", Status: 404,
		}
	}
	return c.Run(ctx, ref.app, newest.Number)
}

// arguments makes cobra's complaints about arguments usage errors.
func arguments(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if err := check(c, args); err != nil {
			return usage("%s: %s", c.UseLine(), err)
		}
		return nil
	}
}

// examples indents the lines of a command's examples.
func examples(lines ...string) string { return "  " + strings.Join(lines, "\n  ") }
