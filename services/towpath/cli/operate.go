package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"towpath.dev/events"
	"towpath.dev/pkg/identity"
	"towpath.dev/pkg/ledger"
	"towpath.dev/pkg/ledger/bus"
	"towpath.dev/services/towpath/client"
)

func (p *program) keysCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "keys", Short: "Make and rotate the keys of an installation", Args: arguments(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	var keys, split string
	make := &cobra.Command{
		Use: "init", Short: "Make every key that a folder lacks",
		Long: `Make every key that a folder lacks: for each identity a key for the bus and a key that signs its
events, the list of keys that are trusted, and the key under which embedded secrets are encrypted.
Keys that exist stay. ` + "`towpath up`" + ` does this by itself. With --split, each identity's own files are
copied into a folder of its own, which is all that its process may have.`,
		Example: examples("towpath keys init --keys /etc/towpath/keys --split /etc/towpath/identities"), Args: arguments(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			if err := identity.Init(keys); err != nil {
				return err
			}
			p.say("Keys are in %s", keys)
			if split == "" {
				return nil
			}
			for _, id := range identity.IDs {
				if err := splitKeys(keys, filepath.Join(split, id), id); err != nil {
					return err
				}
			}
			p.say("Each identity's own are in %s/<identity>", split)
			return nil
		},
	}
	make.Flags().StringVar(&keys, "keys", "keys", "folder of the keys")
	make.Flags().StringVar(&split, "split", "", "folder that gets one folder for each identity")
	c.AddCommand(make, p.keysRotateCommand(), p.keysBotCommand())
	return c
}

// splitKeys copies what one identity's process needs.
func splitKeys(keys, own, id string) error {
	if err := os.MkdirAll(own, 0o700); err != nil {
		return fmt.Errorf("making the folder of %s: %w", id, err)
	}
	names := []string{id + ".nk", id + ".key", identity.TrustFile}
	if id == string(events.Gateway) || id == string(events.Promote) {
		names = append(names, identity.SettingsKeyFile)
	}
	for _, name := range names {
		if err := copyKey(keys, own, name); err != nil {
			return fmt.Errorf("copying the keys of %s: %w", id, err)
		}
	}
	return nil
}

// quickBus bounds the provisioning of a bus.
const quickBus = 30 * time.Second

func (p *program) busCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "bus", Short: "Prepare a nats-server elsewhere as the bus", Args: arguments(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(p.busConfigCommand(), p.busInitCommand())
	return c
}

func (p *program) busConfigCommand() *cobra.Command {
	var cfg bus.Config
	var cluster bus.Cluster
	var out string
	c := &cobra.Command{
		Use: "config", Short: "Write the nats.conf of a server: accounts, keys, permissions",
		Long: `Write the configuration of a nats-server: one account for each service, with its key and with
nothing but its own rights. It is the same that ` + "`towpath up`" + ` uses inside. It holds public keys only; for
a server of a cluster also the secret by which its servers know each other (mode 0600).

A cluster of three servers, of which any one may be lost: write one for each with its own --server and
--cluster-listen and all three addresses in --routes, then towpath bus init --replicas 3.`,
		Example: examples("towpath bus config --keys /etc/towpath/keys --store /var/lib/nats --listen 0.0.0.0:4222 > nats.conf",
			"towpath bus config --server bus-1 --listen 0.0.0.0:4222 --cluster-listen 0.0.0.0:6222 --routes bus-1:6222,bus-2:6222,bus-3:6222 -o nats.conf"),
		Args: arguments(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			if cluster.Server != "" || cluster.Listen != "" || len(cluster.Routes) > 0 {
				cfg.Cluster = &cluster
			}
			var text bytes.Buffer
			if err := bus.WriteConfig(&text, cfg); err != nil {
				return keysMissing(err, cfg.Keys)
			}
			if out == "" {
				_, err := p.out.Out.Write(text.Bytes())
				return err
			}
			mode := fs.FileMode(0o644)
			if cfg.Cluster != nil {
				mode = 0o600
			}
			if err := os.WriteFile(out, text.Bytes(), mode); err != nil {
				return fmt.Errorf("writing the bus configuration: %w", err)
			}
			p.say("Wrote %s", out)
			return nil
		},
	}
	c.Flags().StringVar(&cfg.Keys, "keys", "keys", "folder of the keys")
	c.Flags().StringVar(&cfg.StoreDir, "store", "/var/lib/nats", "folder of the server's streams, on a disk that honours fsync")
	c.Flags().StringVar(&cfg.Listen, "listen", "127.0.0.1:4222", "address on which the server listens")
	c.Flags().StringVarP(&out, "output", "o", "", "file to write (default: stdout)")
	c.Flags().StringVar(&cluster.Server, "server", "", "this server's name in its cluster, such as bus-1")
	c.Flags().StringVar(&cluster.Listen, "cluster-listen", "", "address at which the cluster's other servers reach it, such as 0.0.0.0:6222")
	c.Flags().StringSliceVar(&cluster.Routes, "routes", nil, "addresses of the cluster's servers, host:port,host:port,host:port")
	c.Flags().StringVar(&cfg.TLS.Certificate, "tls-cert", "", "PEM file with the server's certificate; clients then use tls:// and --bus-ca")
	c.Flags().StringVar(&cfg.TLS.Key, "tls-key", "", "PEM file with its key")
	c.Flags().StringVar(&cfg.TLS.Authority, "tls-ca", "", "PEM file with who vouches for the cluster's other servers")
	return c
}

func keysMissing(err error, keys string) error {
	if errors.Is(err, fs.ErrNotExist) {
		return &client.Error{What: "reading the keys", On: keys, Why: err.Error(), Do: "towpath keys init --keys " + keys, Status: 404}
	}
	return err
}

func (p *program) busInitCommand() *cobra.Command {
	var o ledger.Options
	c := &cobra.Command{
		Use: "init", Short: "Make the streams, buckets and consumers on a server",
		Long: `Make the streams, buckets and durable consumers that the services need, and bring those that are
there to what this build expects. Nothing is deleted, and it may be run again. It needs the
operator's keys; no service has the right.`,
		Example: examples("towpath bus init --bus nats://127.0.0.1:4222 --keys /etc/towpath/keys",
			"towpath bus init --bus nats://bus-1:4222,nats://bus-2:4222,nats://bus-3:4222 --replicas 3"), Args: arguments(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			if o.AckWait < ledger.MinAckWait {
				return usage("--ack-wait %s is too short: at least %s", o.AckWait, ledger.MinAckWait)
			}
			ctx, cancel := context.WithTimeout(c.Context(), quickBus)
			defer cancel()
			o.Service, o.Logger = string(events.Operator), slog.New(slog.DiscardHandler)
			if err := ledger.Provision(ctx, o); err != nil {
				return keysMissing(err, o.Keys)
			}
			p.say("The bus at %s has what the services need.", o.URL)
			return nil
		},
	}
	c.Flags().StringVar(&o.URL, "bus", "nats://127.0.0.1:4222", "URL of the server, or several with commas")
	c.Flags().StringVar(&o.CA, "bus-ca", "", "PEM file with who vouches for the server of a tls:// URL (default: the machine's own)")
	c.Flags().IntVar(&o.Replicas, "replicas", 0, "on how many servers each stream is kept, 1 or 3; 0 leaves streams as they are and makes new ones with 1")
	c.Flags().StringVar(&o.Keys, "keys", "keys", "folder of the keys")
	ackWaitFlag(c, &o.AckWait)
	return c
}

// ackWaitFlag lets an operator trade how soon a dead service's work is taken up against how long a busy one may be
// silent. Services learn it when they start.
func ackWaitFlag(c *cobra.Command, wait *time.Duration) {
	c.Flags().DurationVar(wait, "ack-wait", ledger.DefaultAckWait,
		"how long a service may be silent about a message before the message is delivered again")
}
