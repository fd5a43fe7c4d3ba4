package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"towpath.dev/events"
	"towpath.dev/pkg/identity"
	"towpath.dev/pkg/wholefile"
	"towpath.dev/services/towpath/client"
)

func (p *program) keysRotateCommand() *cobra.Command {
	var keys, split string
	var all, asJSON bool
	var actor string
	var change identity.Change
	c := &cobra.Command{
		Use: "rotate [IDENTITY...]", Short: "Give identities new keys while everything runs",
		Long: `Give identities new keys that sign their events, and with --bus new keys that open the bus. Processes
take theirs up within a second; none is restarted and no event is lost. What the old keys signed stays
signed: they remain in the list of trusted keys, and sign nothing new once --overlap has passed. For a
key that was stolen that is --overlap 0.

` + "`towpath up`" + ` gives its bus the new keys by itself. A nats-server elsewhere is told: write its
configuration again with ` + "`towpath bus config`" + `, then nats-server --signal reload; until then it knows the
old bus keys and connections that stand go on. Where services run on other machines, give every one of
them the new trust.json first and its own new keys after that, within --overlap.

The ledger records who did it and why, as key.rotated, with the keys' names. --actor is somebody whom the
gateway knows, by id or email address. Where the gateway cannot be asked, or nobody is named, the record
says that nobody checked it: claimed-ID, or claimed-uid-1000 for the user of this machine.`,
		Example:           examples("towpath keys rotate build --reason 'every quarter'", "towpath keys rotate --all --bus", "towpath keys rotate gateway --bus --overlap 0 --reason 'the laptop was stolen'", "towpath keys rotate --all --keys /etc/towpath/keys --split /etc/towpath/identities"),
		ValidArgsFunction: cobra.FixedCompletions(identity.IDs, cobra.ShellCompDirectiveNoFileComp),
		RunE: func(c *cobra.Command, args []string) error {
			if all == (len(args) > 0) {
				return usage("name the identities (%s), or say --all", strings.Join(identity.IDs, ", "))
			}
			if change.Overlap < 0 {
				return usage("--overlap %s is negative", change.Overlap)
			}
			if len(change.Reason) > maxReason {
				return usage("--reason may have %d bytes", maxReason)
			}
			if keys == "" {
				keys = filepath.Join(p.data, "keys")
			}
			var err error
			if change.Actor, err = p.rotator(c.Context(), actor); err != nil {
				return err
			}
			change.Identities, change.Now = args, time.Now()
			done, err := rotate(keys, split, change)
			if err != nil {
				return err
			}
			if asJSON {
				return p.printJSON(done)
			}
			p.rotated(done, keys)
			return nil
		},
	}
	f := c.Flags()
	f.StringVar(&keys, "keys", "", "folder of the keys (default: keys in the data folder)")
	f.StringVar(&split, "split", "", "folder with one folder for each identity, which gets its new keys")
	f.BoolVar(&all, "all", false, "every identity")
	f.BoolVar(&change.Bus, "bus", false, "the keys that open the bus as well")
	f.DurationVar(&change.Overlap, "overlap", time.Minute, "how long the old keys may still sign; 0 for a stolen one")
	f.StringVar(&actor, "actor", "", "who does this: an `id` or email address (default: the user of this machine)")
	f.StringVar(&change.Reason, "reason", "", "why, for the ledger")
	jsonFlag(c, &asJSON)
	return c
}

// maxReason is the longest reason, in bytes.
const maxReason = 2000

// claimed begins the id of an actor whom nobody could check. No actor of the table has such an id.
const claimed = "claimed-"

// askingBound is how long the gateway may take to say who its actors are.
const askingBound = 5 * time.Second

// rotator is the id of who rotates keys: of the actor who was named, where the gateway knows one, and else what is claimed.
func (p *program) rotator(ctx context.Context, named string) (string, error) {
	if named == "" {
		user := strconv.Itoa(os.Getuid())
		if behind := os.Getenv("SUDO_UID"); user == "0" && behind != "" {
			user = behind
		}
		named = "uid-" + user
	} else if api, err := p.open(); err == nil {
		ctx, cancel := context.WithTimeout(ctx, askingBound)
		defer cancel()
		if actors, err := api.Actors(ctx); err == nil {
			for _, a := range actors {
				if !a.Erased && (a.ID == named || a.Email != "" && strings.EqualFold(a.Email, named)) {
					return a.ID, nil
				}
			}
			return "", &client.Error{What: "finding the actor", On: named, Why: "nobody has this id or email address", Do: "towpath actor list shows them", Status: 404}
		}
	}
	id, err := events.ParseSlug(claimed + strings.TrimPrefix(named, claimed))
	if err != nil {
		return "", usage("--actor %q is not an actor's id, and the gateway cannot be asked", named)
	}
	return string(id), nil
}

// rotate makes the new keys, shows the list of trusted keys to everybody, and only then puts the keys in
// place: whoever meets an event that a new key signed knows that key.
func rotate(keys, split string, change identity.Change) ([]identity.Rotation, error) {
	if _, err := os.Stat(filepath.Join(keys, identity.TrustFile)); err != nil {
		return nil, keysMissing(fmt.Errorf("this is no keys folder: %w", err), keys)
	}
	for _, id := range change.Identities {
		if _, err := os.Stat(filepath.Join(keys, id+".key")); err != nil {
			return nil, &client.Error{What: "rotating the keys of", On: id, Why: "the keys folder " + keys + " has none of it",
				Do: "one of " + strings.Join(identity.IDs, ", "), Status: 404}
		}
	}
	done, err := identity.Prepare(keys, change)
	if err != nil {
		return nil, err
	}
	if split != "" {
		for _, id := range identity.IDs {
			if err := copyKey(keys, filepath.Join(split, id), identity.TrustFile); err != nil {
				return nil, fmt.Errorf("giving %s the trusted keys: %w; run it again", id, err)
			}
		}
	}
	if err := identity.Switch(keys); err != nil {
		return nil, err
	}
	if split == "" {
		return done, nil
	}
	for _, r := range done {
		if err := splitKeys(keys, filepath.Join(split, r.Identity), r.Identity); err != nil {
			return nil, err
		}
	}
	return done, nil
}

// copyKey replaces one file of an identity's folder, so that its process reads the old one or the new.
func copyKey(from, to, name string) error {
	data, err := os.ReadFile(filepath.Join(from, name))
	if err != nil {
		return err
	}
	return wholefile.Make(filepath.Join(to, name), 0o600, func(f *os.File) error {
		_, err := f.Write(data)
		return errors.Join(err, ownAs(f, to))
	})
}

// ownAs gives a file to whom its folder belongs: the user that the identity's process runs as.
func ownAs(f *os.File, folder string) error {
	info, err := os.Stat(folder)
	if err != nil {
		return err
	}
	owner, ok := info.Sys().(*syscall.Stat_t)
	if !ok || int(owner.Uid) == os.Geteuid() {
		return nil
	}
	return f.Chown(int(owner.Uid), int(owner.Gid))
}

func (p *program) rotated(done []identity.Rotation, keys string) {
	bus := false
	for _, r := range done {
		p.say("%s signs with %s; %s signs nothing new from %s on", r.Identity, r.Key, r.Replaces, r.Retires.Local().Format(time.TimeOnly))
		bus = bus || r.BusKey != ""
	}
	if bus {
		p.say("A nats-server elsewhere wants to be told:\n  → towpath bus config --keys %s … -o nats.conf && nats-server --signal reload", shellQuote(keys))
	}
}
