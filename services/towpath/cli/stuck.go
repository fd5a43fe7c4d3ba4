package cli

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"towpath.dev/pkg/ledger"
	"towpath.dev/pkg/ledger/fold"
	"towpath.dev/services/gateway/view"
	"towpath.dev/services/towpath/client"
	"towpath.dev/services/towpath/screen"
)

func (p *program) stuckCommand() *cobra.Command {
	var asJSON, all bool
	c := &cobra.Command{
		Use: "stuck", Short: "List what waits for an operator, with the command that replays it",
		Long: `List the stages that wait for an operator, the oldest first, with the command that replays each.

Above them stand alarms: the ledger is not what was sealed, or somebody else may hold what was handed over for
a service, or a container of an app, alone. Each says what a person does about it; it is gone from here once that
is mended.

Below them stand messages that are tried again by themselves, with why; and messages that were set aside:
nobody acts on them, the ledger keeps them, and where a newer Towpath can read them it takes them up.

With --json it is one list; "kind" is "alarm", "stage" or "message", and a message has a "state": retrying, parked
(upgrade to read it), aside (it cannot be trusted or read) or stopped (the bus delivers it no more). Those of the
last two leave the list by "towpath dismiss"; --all shows them nonetheless.`,
		Example: examples("towpath stuck", "towpath stuck --json"),
		Args:    arguments(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			api, err := p.open()
			if err != nil {
				return err
			}
			alarms, err := api.Alarms(c.Context())
			if err != nil {
				return err
			}
			stages, err := api.Stuck(c.Context())
			if err != nil {
				return err
			}
			messages, err := api.Messages(c.Context(), all)
			if err != nil {
				return err
			}
			// The ledger service, which alone knows, may be away: the rest is shown all the same.
			if sealed, err := api.Checkpoint(c.Context()); err == nil && sealed.Alarm != "" {
				alarms = append([]view.Alarm{{What: sealNotWhole, Why: sealed.Alarm, Do: "towpath audit checkpoint"}}, alarms...)
			}
			if asJSON {
				return p.printJSON(stuckList(alarms, stages, messages))
			}
			p.alarms(alarms, time.Now())
			p.stuck(stages, messages, time.Now())
			return nil
		},
	}
	jsonFlag(c, &asJSON)
	c.Flags().BoolVar(&all, "all", false, "also messages that were dismissed")
	return c
}

// sealNotWhole is the alarm of the ledger's seal.
const sealNotWhole = "the ledger is not what was sealed"

func (p *program) dismissCommand() *cobra.Command {
	cmd := client.Command{Verb: "dismiss"}
	c := &cobra.Command{
		Use: "dismiss SEQ --reason TEXT", Short: "Take a message that was set aside off the list of what is stuck",
		Long: `Take a message that was set aside, or that the bus delivers no more, off the list of "towpath stuck", once
somebody has found out where it came from. Who did so and why is recorded. The ledger keeps the message, nobody ever
acts on it, and "towpath stuck --all" goes on showing it. SEQ is its number there.`,
		Example: examples("towpath dismiss 1204 --reason 'forged by the test of Monday, ticket 4711'"), Args: arguments(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, args []string) error {
			seq, err := strconv.ParseUint(args[0], 10, 64)
			if err != nil || seq == 0 {
				return usage("%q is no message's number: towpath stuck shows them", args[0])
			}
			if cmd.Reason == "" {
				return usage("dismiss takes --reason: it is recorded")
			}
			api, err := p.open()
			if err != nil {
				return err
			}
			cmd.Message = seq
			return p.send(c.Context(), api, cmd)
		},
	}
	reasonFlag(c, &cmd)
	return c
}

// stuckList is what is printed as JSON.
func stuckList(alarms []view.Alarm, stages []view.StuckStage, messages []view.Message) []any {
	list := []any{}
	for _, a := range alarms {
		list = append(list, struct {
			Kind string `json:"kind"`
			view.Alarm
		}{"alarm", a})
	}
	for _, s := range stages {
		list = append(list, struct {
			Kind string `json:"kind"`
			view.StuckStage
		}{"stage", s})
	}
	for _, m := range messages {
		list = append(list, struct {
			Kind string `json:"kind"`
			view.Message
		}{"message", m})
	}
	return list
}

// alarms prints what a person must look into.
func (p *program) alarms(alarms []view.Alarm, now time.Time) {
	for _, a := range alarms {
		since := ""
		if !a.Since.IsZero() { // the seal's alarm has no beginning that is known
			since = "  " + p.out.Paint(screen.Dim, screen.Ago(now, a.Since))
		}
		p.say("%s  %s%s", p.out.Paint(screen.Red, "ALARM"), p.out.Paint(screen.Bold, screen.Line(a.What)), since)
		p.indented(a.Why)
		p.indented("→ " + a.Do)
		p.say("")
	}
}

func (p *program) stuck(stages []view.StuckStage, messages []view.Message, now time.Time) {
	if len(stages) == 0 {
		p.say("Nothing is stuck.")
	}
	sign, style := screen.Mark(fold.Stuck)
	for i, s := range stages {
		if i > 0 {
			p.say("")
		}
		place := screen.Place(view.Stage{Stage: s.Stage, Env: s.Env})
		times := screen.Ago(now, s.Since)
		if s.Attempt > 1 {
			times += fmt.Sprintf(", attempt %d", s.Attempt)
		}
		if s.Tries > 1 {
			times += fmt.Sprintf(", tried %d times", s.Tries)
		}
		p.say("%s %s  %s  %s", p.out.Paint(style, sign), p.out.Paint(screen.Bold, s.Run), place, p.out.Paint(screen.Dim, times))
		p.indented(s.Why)
		p.say("    → %s", p.out.Paint(screen.Bold, screen.Line(s.Command)))
	}
	var retrying, aside []view.Message
	for _, m := range messages {
		if m.State == ledger.Retrying {
			retrying = append(retrying, m)
		} else {
			aside = append(aside, m)
		}
	}
	p.retrying(retrying, now)
	p.setAside(aside, now)
}

// indented prints a text that may have several lines below what it is about.
func (p *program) indented(text string) {
	for _, l := range screen.Wrap(text, max(0, p.out.Width-4)) {
		p.say("    %s", l)
	}
}

// retrying prints what is tried again by itself.
func (p *program) retrying(messages []view.Message, now time.Time) {
	if len(messages) == 0 {
		return
	}
	p.say("")
	p.say("Tried again by itself:")
	for _, m := range messages {
		what := m.Run
		if what == "" {
			what = screen.Line(m.Subject)
		}
		text := fmt.Sprintf("try %d of %d failed", m.Tries, m.Allowed)
		if m.Next != nil && m.Next.After(now) {
			text += ", the next in " + screen.Took(m.Next.Sub(now))
		}
		p.say("  %s  %s  %s", p.out.Paint(screen.Bold, what), strings.Join(m.Services, ", "), p.out.Paint(screen.Dim, text))
		p.indented(m.Why)
	}
}

// setAside prints what nobody acts on.
func (p *program) setAside(messages []view.Message, now time.Time) {
	if len(messages) == 0 {
		return
	}
	p.say("")
	p.say("Set aside, nobody acts on it:")
	for _, m := range messages {
		what := fmt.Sprintf("event %d", m.Seq)
		if m.Type != "" {
			what += "  " + screen.Line(m.Type)
		}
		p.say("  %s  %s", p.out.Paint(screen.Bold, what), p.out.Paint(screen.Dim, screen.Ago(now, m.Since)+", met by "+strings.Join(m.Services, ", ")))
		p.indented(screen.Line(m.Subject))
		p.indented(m.Why)
		if m.Dismissed {
			p.indented("dismissed by an operator")
			continue
		}
		p.say("    → %s", p.out.Paint(screen.Bold, screen.Line(m.Do)))
	}
}
