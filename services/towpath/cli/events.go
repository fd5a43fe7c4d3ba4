package cli

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"towpath.dev/services/towpath/client"
	"towpath.dev/services/towpath/screen"
)

func (p *program) eventsCommand() *cobra.Command {
	var q client.EventQuery
	var asJSON bool
	c := &cobra.Command{
		Use: "events [APP | RUN]", Short: "Read the ledger: what was decided, in order",
		Example: examples("towpath events hello/1", "towpath events --type slot.decided --follow", "towpath events hello --json"),
		Args:    arguments(cobra.MaximumNArgs(1)), ValidArgsFunction: p.completeRuns,
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) == 1 {
				ref, err := parseRun(args[0])
				if err != nil {
					return err
				}
				if q.App != "" && q.App != ref.app {
					return usage("%s is not a run of --app %s", args[0], q.App)
				}
				q.App, q.Run = ref.app, ref.number
			}
			api, err := p.open()
			if err != nil {
				return err
			}
			return api.Events(c.Context(), q, func(e client.Event, line []byte) error {
				if asJSON {
					_, err := fmt.Fprintf(p.out.Out, "%s\n", line)
					return err
				}
				_, err := fmt.Fprintln(p.out.Out, p.event(e))
				return err
			})
		},
	}
	c.Flags().StringVar(&q.App, "app", "", "only this app")
	c.Flags().StringVar(&q.Type, "type", "", "only types that hold this text, such as slot.decided")
	c.Flags().Uint64Var(&q.After, "after", 0, "only events after this sequence")
	c.Flags().BoolVarP(&q.Follow, "follow", "f", false, "go on as events come")
	c.Flags().BoolVar(&asJSON, "json", false, "print one JSON object a line, with times in RFC 3339")
	return c
}

// event is one event in one line: sequence, time, run, what happened.
func (p *program) event(e client.Event) string {
	what := strings.TrimPrefix(strings.TrimPrefix(e.Type, "dev.cdevents."), "dev.cdeventsx.towpath-")
	// The version says nothing to people.
	if parts := strings.SplitN(what, ".", 3); len(parts) == 3 {
		what = parts[0] + "." + parts[1]
	}
	app, run, env := "", "", ""
	if tokens := strings.Split(e.Subject, "."); len(tokens) == 10 {
		app, run, env = tokens[3], tokens[4], tokens[5]
	}
	place := app
	if run != "_" && run != "" {
		place += "/" + run
	}
	if env == "_" {
		env = ""
	}
	return fmt.Sprintf("%6d  ", e.Seq) + p.out.Paint(screen.Dim, e.Time.Local().Format(time.TimeOnly)) +
		fmt.Sprintf("  %-14s %-8s %s", screen.Line(place), screen.Line(env), screen.Line(what))
}
