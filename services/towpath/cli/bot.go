package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"towpath.dev/events"
	"towpath.dev/pkg/identity"
	"towpath.dev/services/towpath/client"
)

func (p *program) keysBotCommand() *cobra.Command {
	var keys, out string
	var remove bool
	c := &cobra.Command{
		Use: "bot ACTOR", Short: "Let a bot onto the bus, or no longer",
		Long: `Make the bus key of a bot that ` + "`towpath actor add --bot`" + ` has made known. The private half goes to
the file that --output names, mode 0600, and is kept nowhere else; the public half goes into the keys
folder. With it the bot can send requests on command.ACTOR.> and hear their answers, and nothing else.

` + "`towpath up --bus-listen`" + ` takes it up by itself within a second or two. A nats-server elsewhere is told:
write its configuration again with ` + "`towpath bus config`" + `, then nats-server --signal reload, twice (a
new account works from the second time on). Neither breaks a connection.`,
		Example: examples("towpath keys bot u-q5n3kzv7d2x4h6aw --output bot.nk", "towpath keys bot u-q5n3kzv7d2x4h6aw --remove"),
		Args:    arguments(cobra.ExactArgs(1)),
		RunE: func(_ *cobra.Command, args []string) error {
			id, err := events.ParseSlug(args[0])
			if err != nil {
				return usage("%q is not an actor's id; towpath actor list shows them", args[0])
			}
			if keys == "" {
				keys = filepath.Join(p.data, "keys")
			}
			if remove {
				return p.removeBot(keys, id)
			}
			if out == "" {
				return usage("--output names the file that gets the bot's private key")
			}
			return p.addBot(keys, id, out)
		},
	}
	c.Flags().StringVar(&keys, "keys", "", "folder of the keys (default: keys in the data folder)")
	c.Flags().StringVarP(&out, "output", "o", "", "file that gets the private key; it must not be there yet")
	c.Flags().BoolVar(&remove, "remove", false, "take the key away")
	return c
}

// addBot opens the file first, so that no key is made that nobody has.
func (p *program) addBot(keys string, id events.Slug, out string) (err error) {
	if _, err := os.Stat(filepath.Join(keys, identity.TrustFile)); err != nil {
		return keysMissing(fmt.Errorf("this is no keys folder: %w", err), keys)
	}
	file, err := os.OpenFile(out, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("writing the bot's key: %w", err)
	}
	defer func() {
		if err = errors.Join(err, file.Close()); err != nil {
			os.Remove(out)
		}
	}()
	seed, err := identity.AddBot(keys, id)
	if errors.Is(err, identity.ErrBotHasKey) {
		return &client.Error{What: "making a bus key of", On: string(id), Why: "it has one already",
			Do: "towpath keys bot " + string(id) + " --remove, then again", Status: 409}
	}
	if err != nil {
		return err
	}
	if _, err := file.Write(append(seed, '\n')); err != nil {
		return errors.Join(fmt.Errorf("writing the bot's key: %w", err), identity.RemoveBot(keys, id))
	}
	p.say("%s may ask on %s; its private key is in %s.", id, events.BotSubject(id), out)
	return nil
}

func (p *program) removeBot(keys string, id events.Slug) error {
	err := identity.RemoveBot(keys, id)
	if errors.Is(err, fs.ErrNotExist) {
		return &client.Error{What: "taking the bus key away of", On: string(id), Why: "it has none", Status: 404}
	}
	if err != nil {
		return err
	}
	p.say("%s has no bus key any more.", id)
	return nil
}
