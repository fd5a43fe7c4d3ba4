package cli

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"towpath.dev/services/gateway/view"
	"towpath.dev/services/towpath/client"
	"towpath.dev/services/towpath/screen"
)

func (p *program) eventsCommand() *cobra.Command {
	var q client.EventQuery
	var since, until string
	var asJSON, cloudEvents bool
	c := &cobra.Command{
		Use: "events [APP | RUN]", Short: "Read the ledger: what was decided, in order",
		Long: `Read the ledger: what was decided, in order. Each line is the event's sequence, when it was
stored, what it is about, what happened, who asked for it, and what it says.

--json prints the events themselves, one CDEvent (0.5.1) a line, byte for byte as it was signed.
--cloudevents prints them in CloudEvents' structured mode, with sequence, subject and signature.`,
		Example: examples("towpath events hello/1", "towpath events --type slot.decided --env prod --since 24h",
			"towpath events --digest 2350bf5f3568", "towpath events --actor me --last 20", "towpath events hello --follow --json"),
		Args: arguments(cobra.MaximumNArgs(1)), ValidArgsFunction: p.completeRuns,
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
			for flag, n := range map[string]int{"limit": q.Limit, "last": q.Last} {
				if c.Flags().Changed(flag) && n < 1 {
					return usage("--%s %d: it counts from 1; leave it out for all", flag, n)
				}
			}
			now := time.Now()
			var err error
			if q.Since, err = moment("since", since, now); err != nil {
				return err
			}
			if q.Until, err = moment("until", until, now); err != nil {
				return err
			}
			if asJSON && cloudEvents {
				return usage("--json and --cloudevents are two forms: choose one")
			}
			api, err := p.open()
			if err != nil {
				return err
			}
			if cloudEvents {
				return api.CloudEvents(c.Context(), q, func(line []byte) error { return p.eventLine(line) })
			}
			return api.Events(c.Context(), q, func(e view.EventLine) error {
				if asJSON {
					return p.eventLine(e.Event)
				}
				return p.eventLine([]byte(p.event(e, now)))
			})
		},
	}
	c.Flags().StringVar(&q.App, "app", "", "only this app")
	c.Flags().StringVar(&q.Env, "env", "", "only in this environment")
	c.Flags().StringVar(&q.Type, "type", "", "only this type: slot, slot.decided, or in full")
	c.Flags().StringVar(&q.Digest, "digest", "", "only what names this image, policy or definition; its first 6 digits will do")
	c.Flags().StringVar(&q.Actor, "actor", "", "only what this actor asked for, approved or wrote: an `id`, an email address, or me")
	c.Flags().StringVar(&since, "since", "", "only from this `time` on: 2h, 3d, 2026-01-02 or 2026-01-02T15:04:05Z")
	c.Flags().StringVar(&until, "until", "", "only before this `time`")
	c.Flags().Uint64Var(&q.After, "after", 0, "only events after this sequence")
	c.Flags().IntVar(&q.Limit, "limit", 0, "at most so many, the oldest first")
	c.Flags().IntVarP(&q.Last, "last", "n", 0, "only so many of the last, at most 1000")
	c.Flags().BoolVarP(&q.Follow, "follow", "f", false, "go on as events come, and when the gateway comes back within 30 s")
	c.Flags().BoolVar(&asJSON, "json", false, "print each as CDEvents JSON, one a line")
	c.Flags().BoolVar(&cloudEvents, "cloudevents", false, "print each in CloudEvents' structured JSON, one a line")
	c.RegisterFlagCompletionFunc("app", func(c *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
		return p.appNames(c), cobra.ShellCompDirectiveNoFileComp
	})
	c.RegisterFlagCompletionFunc("env", func(c *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
		return p.envNames(c), cobra.ShellCompDirectiveNoFileComp
	})
	return c
}

func (p *program) eventLine(line []byte) error {
	_, err := fmt.Fprintf(p.out.Out, "%s\n", line)
	return err
}

// moment reads a time as people write one: how long ago, a day here, or a time in RFC 3339.
func moment(flag, text string, now time.Time) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	if days, ok := strings.CutSuffix(text, "d"); ok {
		var n int
		if _, err := fmt.Sscanf(days, "%d", &n); err == nil && fmt.Sprint(n) == days && n > 0 {
			return now.AddDate(0, 0, -n), nil
		}
	}
	if ago, err := time.ParseDuration(text); err == nil && ago > 0 {
		return now.Add(-ago), nil
	}
	for _, layout := range []string{time.RFC3339, "2006-01-02 15:04", time.DateOnly} {
		if at, err := time.ParseInLocation(layout, text, now.Location()); err == nil {
			return at, nil
		}
	}
	return time.Time{}, usage("--%s %q is no time: write 2h, 3d, 2026-01-02 or 2026-01-02T15:04:05Z", flag, text)
}

// event is one event in one line: sequence, time, run, environment, what happened, who, what it says.
func (p *program) event(e view.EventLine, now time.Time) string {
	what := strings.TrimPrefix(strings.TrimPrefix(string(e.Type), "dev.cdevents."), "dev.cdeventsx.towpath-")
	// The version says nothing to people.
	if parts := strings.SplitN(what, ".", 3); len(parts) == 3 {
		what = parts[0] + "." + parts[1]
	}
	app, env := "", ""
	if tokens := strings.Split(e.Subject, "."); len(tokens) == 10 {
		app, env = tokens[3], tokens[5]
	}
	place := strings.Trim(app, "_")
	if e.Run > 0 {
		place += "/" + strconv.Itoa(e.Run)
	}
	if env == "_" {
		env = ""
	}
	at, layout := e.Time.Local(), time.TimeOnly
	if now.Sub(at) > 20*time.Hour {
		layout = "Jan 02 15:04"
	}
	said := cmp.Or(e.Name, e.Actor)
	if e.Detail != "" {
		if said != "" {
			said += ": "
		}
		said += e.Detail
	}
	line := fmt.Sprintf("%6d  ", e.Seq) + p.out.Paint(screen.Dim, fmt.Sprintf("%-8s", at.Format(layout))) +
		fmt.Sprintf("  %-14s %-8s %-22s %s", screen.Line(place), screen.Line(env), screen.Line(what), screen.Line(said))
	return strings.TrimRight(line, " ")
}
