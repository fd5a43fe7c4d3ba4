package cli

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"towpath.dev/services/towpath/client"
	"towpath.dev/services/towpath/screen"
)

// maxSecret bounds a secret that is read from stdin, in bytes.
const maxSecret = 64 << 10

func (p *program) configCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "config", Short: "Set and show an app's configuration in an environment", Args: arguments(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(p.configSetCommand(), p.configGetCommand(), p.settingListCommand(client.Config, "config"), p.settingRemoveCommand(client.Config, "config"))
	return c
}

func (p *program) secretCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "secret", Short: "Set and list an app's secrets in an environment", Args: arguments(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(p.secretSetCommand(), p.settingListCommand(client.Secrets, "secret"), p.settingRemoveCommand(client.Secrets, "secret"))
	return c
}

func (p *program) configSetCommand() *cobra.Command {
	return &cobra.Command{
		Use: "set ENV APP KEY=VALUE...", Short: "Set configuration; what waits for it goes on",
		Example: examples("towpath config set qa hello GREETING=hi DATABASE_URL=postgres://db/hello"),
		Args:    arguments(cobra.MinimumNArgs(3)), ValidArgsFunction: p.completeEnvApp,
		RunE: func(c *cobra.Command, args []string) error {
			type pair struct{ key, value string }
			var pairs []pair
			for _, text := range args[2:] {
				key, value, found := strings.Cut(text, "=")
				if !found || key == "" {
					return usage("%q is not KEY=VALUE", text)
				}
				pairs = append(pairs, pair{key, value})
			}
			api, err := p.open()
			if err != nil {
				return err
			}
			for _, kv := range pairs {
				made, err := api.SetSetting(c.Context(), client.Config, args[0], args[1], kv.key, kv.value)
				if err != nil {
					return err
				}
				p.say("%s of %s in %s is set (version %d)", kv.key, args[1], args[0], made.Version)
				p.warn(made)
			}
			return nil
		},
	}
}

func (p *program) configGetCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use: "get ENV APP KEY", Short: "Print one value", Example: examples("towpath config get qa hello GREETING"),
		Args: arguments(cobra.ExactArgs(3)), ValidArgsFunction: p.completeEnvApp,
		RunE: func(c *cobra.Command, args []string) error {
			api, err := p.open()
			if err != nil {
				return err
			}
			list, err := api.Settings(c.Context(), client.Config, args[0], args[1])
			if err != nil {
				return err
			}
			for _, s := range list {
				if s.Key != args[2] || s.Value == nil {
					continue
				}
				if asJSON {
					return p.printJSON(s)
				}
				p.say("%s", *s.Value)
				return nil
			}
			return &client.Error{
				What: "reading " + args[2], On: fmt.Sprintf("of %s in %s", args[1], args[0]), Why: "it has no value",
				Do: fmt.Sprintf("towpath config set %s %s %s=…", args[0], args[1], args[2]), Status: 404,
			}
		},
	}
	jsonFlag(c, &asJSON)
	return c
}

func (p *program) settingListCommand(store client.Store, noun string) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use: "list ENV APP", Short: "List the keys", Example: examples("towpath " + noun + " list qa hello"),
		Args: arguments(cobra.ExactArgs(2)), ValidArgsFunction: p.completeEnvApp,
		RunE: func(c *cobra.Command, args []string) error {
			api, err := p.open()
			if err != nil {
				return err
			}
			list, err := api.Settings(c.Context(), store, args[0], args[1])
			if err != nil {
				return err
			}
			return p.list(asJSON, list, settingTable(list, store, time.Now()), "Nothing is set.")
		},
	}
	jsonFlag(c, &asJSON)
	return c
}

func settingTable(list []client.Setting, store client.Store, now time.Time) screen.Table {
	t := screen.Table{Heading: []string{"KEY", "VERSION", "SET", "VALUE"}}
	if store == client.Secrets {
		t.Heading = t.Heading[:3]
	}
	for _, s := range list {
		row := []screen.Cell{screen.Text("%s", s.Key), screen.Text("%s", strconv.FormatUint(s.Version, 10)), screen.Text("%s", screen.Ago(now, s.Changed))}
		if store == client.Config && s.Value != nil {
			row = append(row, screen.Text("%s", *s.Value))
		}
		t.Add(row...)
	}
	return t
}

func (p *program) settingRemoveCommand(store client.Store, noun string) *cobra.Command {
	var force bool
	c := &cobra.Command{
		Use: "rm ENV APP KEY...", Short: "Remove keys that nothing running needs",
		Long: `Remove keys. One that a running version needs is kept, and its users are named: a replica that
starts again would not find it. --force removes it all the same.`,
		Example: examples("towpath " + noun + " rm qa hello GREETING"),
		Args:    arguments(cobra.MinimumNArgs(3)), ValidArgsFunction: p.completeEnvApp,
		RunE: func(c *cobra.Command, args []string) error {
			api, err := p.open()
			if err != nil {
				return err
			}
			for _, key := range args[2:] {
				gone, err := api.DeleteSetting(c.Context(), store, args[0], args[1], key, force)
				if err != nil {
					return err
				}
				p.say("%s of %s in %s is removed", key, args[1], args[0])
				p.warn(gone)
			}
			return nil
		},
	}
	c.Flags().BoolVar(&force, "force", false, "also where a running version needs it")
	return c
}

func (p *program) secretSetCommand() *cobra.Command {
	return &cobra.Command{
		Use: "set ENV APP KEY", Short: "Set a secret, from a prompt or from stdin",
		Long: `Set a secret. On a terminal its value is asked for and not shown; otherwise it is read from
stdin, without the line feed at the end of a text; what is no UTF-8 is taken as it is. It is never
an argument: those are seen in process lists and shell histories.`,
		Example: examples("towpath secret set qa hello DATABASE_PASSWORD", "pass show hello/qa | towpath secret set qa hello DATABASE_PASSWORD"),
		Args:    arguments(keyAlone), ValidArgsFunction: p.completeEnvApp,
		RunE: func(c *cobra.Command, args []string) error {
			value, err := p.readSecret(args[2])
			if err != nil {
				return err
			}
			api, err := p.open()
			if err != nil {
				return err
			}
			made, err := api.SetSetting(c.Context(), client.Secrets, args[0], args[1], args[2], value)
			if err != nil {
				return err
			}
			p.say("%s of %s in %s is set (version %d)", args[2], args[1], args[0], made.Version)
			p.warn(made)
			return nil
		},
	}
}

// keyAlone refuses a value among the arguments, without repeating it.
func keyAlone(c *cobra.Command, args []string) error {
	if len(args) > 3 || len(args) == 3 && strings.Contains(args[2], "=") {
		return errors.New("a secret's value is never an argument: give only its key, and the value on stdin or at the prompt; " +
			"this one is in your shell's history and was in the list of processes, so use another")
	}
	return cobra.ExactArgs(3)(c, args)
}

// warn says on stderr what is to be known of a key that was set or removed.
func (p *program) warn(s client.Setting) {
	if s.Warning != "" {
		fmt.Fprintf(p.err.Out, "%s %s\n", p.err.Paint(screen.Yellow, "warning:"), screen.Line(s.Warning))
	}
}

func (p *program) readSecret(key string) (string, error) {
	fd := int(p.in.Fd())
	if term.IsTerminal(fd) {
		fmt.Fprintf(p.err.Out, "%s (not shown): ", key)
		value, err := term.ReadPassword(fd)
		fmt.Fprintln(p.err.Out)
		if err != nil {
			return "", fmt.Errorf("reading the value of %s from the terminal: %w", key, err)
		}
		return notEmpty(key, string(value))
	}
	data, err := io.ReadAll(io.LimitReader(p.in, maxSecret+1))
	if err != nil {
		return "", fmt.Errorf("reading the value of %s from stdin: %w", key, err)
	}
	if len(data) > maxSecret {
		return "", usage("the value of %s is longer than %d bytes", key, maxSecret)
	}
	text := string(data)
	if line, found := strings.CutSuffix(text, "\n"); found && utf8.Valid(data) {
		text = strings.TrimSuffix(line, "\r")
	}
	return notEmpty(key, text)
}

func notEmpty(key, value string) (string, error) {
	if value == "" {
		return "", usage("the value of %s is empty: type it at the prompt or pipe it to stdin", key)
	}
	return value, nil
}
