package cli

import (
	"strings"

	"github.com/spf13/cobra"

	"towpath.dev/pkg/identity"
	"towpath.dev/services/gateway/view"
	"towpath.dev/services/towpath/screen"
)

func (p *program) actorCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "actor", Short: "Add people and bots, and say what they may do", Args: arguments(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(p.actorListCommand(), p.actorAddCommand(), p.actorRoleCommand(), p.actorTokenCommand(), p.actorMapCommand(), p.actorEraseCommand())
	return c
}

func (p *program) actorListCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use: "list", Short: "List everybody who is known", Example: examples("towpath actor list"), Args: arguments(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			api, err := p.open()
			if err != nil {
				return err
			}
			actors, err := api.Actors(c.Context())
			if err != nil {
				return err
			}
			t := screen.Table{Heading: []string{"ACTOR", "KIND", "NAME", "ROLES", "TOKENS", "KNOWN AS"}}
			for _, a := range actors {
				name, known := a.Name, append(append([]string{}, a.External...), a.Email)
				if a.Erased {
					name = "(erased)"
				}
				for _, prefix := range a.SpeaksFor {
					known = append(known, "speaks for "+prefix+"…")
				}
				t.Add(screen.Text("%s", a.ID), screen.Text("%s", a.Kind), screen.Text("%s", screen.Line(name)), screen.Text("%s", strings.Join(a.Roles, ", ")),
					screen.Text("%d", a.Tokens), screen.Text("%s", screen.Line(strings.TrimSpace(strings.Join(known, " ")))))
			}
			return p.list(asJSON, actors, t, "Nobody is known.")
		},
	}
	jsonFlag(c, &asJSON)
	return c
}

func (p *program) actorAddCommand() *cobra.Command {
	var a view.NewActor
	var bot, asJSON bool
	c := &cobra.Command{
		Use: "add NAME", Short: "Add a person or a bot",
		Long: `Add a person, or with --bot a program that passes on what people say. A person's --email is the
address that their commits carry, so that nobody approves what they wrote. A bot approves nothing for
itself; it may speak for people whose external names begin with --speaks-for and were given to them by
` + "`towpath actor map`" + `.`,
		Example: examples("towpath actor add Ann --email ann@example.org --role approver", "towpath actor add chatbot --bot --speaks-for slack:T123/"),
		Args:    arguments(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, args []string) error {
			a.Name = args[0]
			if len(a.SpeaksFor) > 0 && !bot {
				return usage("--speaks-for is for bots: add --bot")
			}
			if bot {
				a.Kind = identity.KindBot
				if len(a.Roles) == 0 {
					a.Roles = []string{identity.RoleBot}
				}
			}
			api, err := p.open()
			if err != nil {
				return err
			}
			made, err := api.AddActor(c.Context(), a)
			if err != nil {
				return err
			}
			if asJSON {
				return p.printJSON(made)
			}
			p.say("%s is %s", made.ID, screen.Line(made.Name))
			p.say("  → towpath actor token %s", made.ID)
			return nil
		},
	}
	c.Flags().StringVar(&a.Email, "email", "", "address that the person's commits carry")
	c.Flags().StringSliceVar(&a.Roles, "role", nil, "admin, operator, approver, developer, auditor or bot; may be given several times (default for a bot: bot)")
	c.Flags().BoolVar(&bot, "bot", false, "a program, not a person")
	c.Flags().StringSliceVar(&a.SpeaksFor, "speaks-for", nil, "beginning of the external names of those whom the bot may speak for, such as slack:T123/")
	jsonFlag(c, &asJSON)
	return c
}

func (p *program) actorRoleCommand() *cobra.Command {
	return &cobra.Command{
		Use: "role ACTOR [ROLE...]", Short: "Replace an actor's roles; none takes all away",
		Example: examples("towpath actor role u-q5n3kzv7d2x4h6aw operator approver"), Args: arguments(cobra.MinimumNArgs(1)),
		ValidArgsFunction: p.completeActors,
		RunE: func(c *cobra.Command, args []string) error {
			api, err := p.open()
			if err != nil {
				return err
			}
			changed, err := api.SetRoles(c.Context(), args[0], args[1:])
			if err != nil {
				return err
			}
			if len(changed.Roles) == 0 {
				p.say("%s has no role any more", changed.ID)
				return nil
			}
			p.say("%s is %s", changed.ID, strings.Join(changed.Roles, ", "))
			return nil
		},
	}
}

func (p *program) actorTokenCommand() *cobra.Command {
	var revoke bool
	c := &cobra.Command{
		Use: "token ACTOR", Short: "Issue a token, which is printed this once, or take all away",
		Example: examples("towpath actor token u-q5n3kzv7d2x4h6aw > ann.token", "towpath actor token u-q5n3kzv7d2x4h6aw --revoke"),
		Args:    arguments(cobra.ExactArgs(1)), ValidArgsFunction: p.completeActors,
		RunE: func(c *cobra.Command, args []string) error {
			api, err := p.open()
			if err != nil {
				return err
			}
			if revoke {
				if err := api.RevokeTokens(c.Context(), args[0]); err != nil {
					return err
				}
				p.say("%s has no token any more", args[0])
				return nil
			}
			token, err := api.IssueToken(c.Context(), args[0])
			if err != nil {
				return err
			}
			p.say("%s", token)
			return nil
		},
	}
	c.Flags().BoolVar(&revoke, "revoke", false, "take all tokens of the actor away instead")
	return c
}

func (p *program) actorMapCommand() *cobra.Command {
	var remove bool
	c := &cobra.Command{
		Use: "map EXTERNAL ACTOR", Short: "Say whom another system means by a name",
		Long: `Say which person another system means by a name, CHANNEL:ID, so that a bot may pass on what they
say there. Take the id that never changes hands there (Slack's U456, not a display name). A name
belongs to one person.`,
		Example: examples("towpath actor map slack:T123/U456 u-q5n3kzv7d2x4h6aw", "towpath actor map slack:T123/U456 u-q5n3kzv7d2x4h6aw --remove"),
		Args:    arguments(cobra.ExactArgs(2)),
		RunE: func(c *cobra.Command, args []string) error {
			api, err := p.open()
			if err != nil {
				return err
			}
			if remove {
				if err := api.UnmapActor(c.Context(), args[0], args[1]); err != nil {
					return err
				}
				p.say("%s is nobody any more", args[0])
				return nil
			}
			if err := api.MapActor(c.Context(), args[0], args[1]); err != nil {
				return err
			}
			p.say("%s is %s", args[0], args[1])
			return nil
		},
	}
	c.Flags().BoolVar(&remove, "remove", false, "take the name away instead")
	return c
}

func (p *program) actorEraseCommand() *cobra.Command {
	return &cobra.Command{
		Use: "erase ACTOR", Short: "Take name, address, roles, tokens and external names away",
		Long: `Erase an actor: name, address, roles, tokens and external names go, the id stays. What the actor did
stays in the ledger under an id that points to nobody.`,
		Example: examples("towpath actor erase u-q5n3kzv7d2x4h6aw"), Args: arguments(cobra.ExactArgs(1)), ValidArgsFunction: p.completeActors,
		RunE: func(c *cobra.Command, args []string) error {
			api, err := p.open()
			if err != nil {
				return err
			}
			if err := api.EraseActor(c.Context(), args[0]); err != nil {
				return err
			}
			p.say("%s is erased", args[0])
			return nil
		},
	}
}

func (p *program) completeActors(c *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return identity.Roles, cobra.ShellCompDirectiveNoFileComp
	}
	api, err := p.open()
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	actors, err := api.Actors(c.Context())
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var ids []string
	for _, a := range actors {
		if !a.Erased {
			ids = append(ids, a.ID+"\t"+a.Name)
		}
	}
	return ids, cobra.ShellCompDirectiveNoFileComp
}
