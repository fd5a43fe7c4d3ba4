// Package bus is the message bus: the configuration of a nats-server with Towpath's accounts, keys and
// permissions, and that server running in this process. One generator writes both, so that a process
// on its own and a cluster elsewhere give every identity the same rights.
//
// It guarantees that a service can append only under its own name, read only what it is granted, and
// never publish to the ledger's subjects or change a stream. It does not make the streams: that is
// ledger.Provision.
package bus

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"strconv"
	"strings"

	"towpath.dev/events"
	"towpath.dev/pkg/identity"
)

// Config describes one server of the bus.
type Config struct {
	// StoreDir is the folder of the streams, on a disk that honours fsync.
	StoreDir string
	// Listen is the address for clients, "127.0.0.1:4222"; port 0 takes a free one. Empty: no
	// listener, the server is reached from within its process only.
	Listen string
	// Keys is a folder with the NATS key of every identity; of them only the public halves are used. A
	// cluster's servers know each other by a secret that lies there as well.
	Keys string
	// Cluster joins the server to others; nil: it is alone.
	Cluster *Cluster
	// TLS is used where it names a certificate.
	TLS TLS
	// Epoch of the ledger, 1 and up; 0 means 1.
	Epoch int
	// Logger receives the server's warnings and errors; nil means slog.Default. Start only.
	Logger *slog.Logger
}

func (c Config) validate() error {
	var errs []error
	if c.StoreDir == "" {
		errs = append(errs, errors.New("store folder is missing"))
	}
	if c.Keys == "" {
		errs = append(errs, errors.New("keys folder is missing"))
	}
	if c.Listen != "" {
		if _, port, err := net.SplitHostPort(c.Listen); err != nil {
			errs = append(errs, fmt.Errorf("listen address %q: %w", c.Listen, err))
		} else if n, err := strconv.Atoi(port); err != nil || n < 0 || n > 65535 {
			errs = append(errs, fmt.Errorf("listen address %q: port must be 0–65535", c.Listen))
		}
	}
	if c.Epoch < 0 {
		errs = append(errs, fmt.Errorf("epoch %d is below 1", c.Epoch))
	}
	if c.Cluster != nil {
		errs = append(errs, c.Cluster.validate()...)
	}
	errs = append(errs, c.TLS.validate(c.Cluster != nil)...)
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("bus configuration: %w", err)
	}
	return nil
}

// MaxPayload is the largest message that the bus takes, in bytes: a bucket's value, a log's chunk. An
// event is held to events.MaxEventSize.
const MaxPayload = 1 << 20

const (
	botConnections = 16
	botPayload     = 128 << 10 // bytes: a command and its headers
)

// WriteConfig writes the nats-server configuration (nats.conf) for cfg. It holds public keys only, and for
// a cluster the secret by which its servers know each other.
func WriteConfig(w io.Writer, cfg Config) error {
	if err := cfg.validate(); err != nil {
		return err
	}
	if cfg.Epoch == 0 {
		cfg.Epoch = 1
	}
	public := map[events.Writer]string{}
	for _, id := range identity.IDs {
		key, err := identity.LoadBusKey(cfg.Keys, id)
		if err != nil {
			return err
		}
		public[events.Writer(id)] = key.Public
	}
	bots, err := identity.Bots(cfg.Keys)
	if err != nil {
		return err
	}
	var b bytes.Buffer
	fmt.Fprintln(&b, "# nats-server configuration of Towpath's bus. Generated: towpath bus config")
	if cfg.Listen != "" {
		fmt.Fprintf(&b, "listen: %s\n", quote(cfg.Listen))
	}
	fmt.Fprintf(&b, "max_payload: %d\n", MaxPayload)
	fmt.Fprintf(&b, "jetstream {\n  store_dir: %s\n  # without it a power cut loses acknowledged events\n  sync_interval: always\n}\n", quote(filepath.Clean(cfg.StoreDir)))
	if err := writeCluster(&b, cfg); err != nil {
		return err
	}
	fmt.Fprintln(&b, "accounts {")
	writeOwner(&b, public, cfg.Epoch)
	for _, service := range accounts {
		writeService(&b, service, public[service], cfg.Epoch, bots)
	}
	for _, bot := range bots {
		writeBot(&b, bot)
	}
	fmt.Fprintln(&b, "}")
	if _, err := w.Write(b.Bytes()); err != nil {
		return fmt.Errorf("writing the bus configuration: %w", err)
	}
	return nil
}

func writeOwner(b *bytes.Buffer, public map[events.Writer]string, epoch int) {
	fmt.Fprintf(b, "  %s {\n    jetstream: enabled\n    users: [\n", owner)
	for _, id := range []events.Writer{events.Ledger, events.Operator} {
		publish, subscribe := ownerRights(id, epoch)
		fmt.Fprintf(b, "      # %s\n      {nkey: %s, permissions: {publish: {allow: %s}, subscribe: {allow: %s}, allow_responses: true}}\n",
			id, public[id], list(publish), list(subscribe))
	}
	fmt.Fprint(b, "    ]\n    exports: [\n")
	for _, service := range accounts {
		for _, g := range grants(service, epoch) {
			fmt.Fprintf(b, "      %s\n", export(g))
		}
	}
	fmt.Fprint(b, "    ]\n  }\n")
}

func export(g grant) string {
	switch {
	case g.stream:
		return fmt.Sprintf("{stream: %s, accounts: [%s]}", quote(g.subject), g.account)
	case g.many:
		return fmt.Sprintf("{service: %s, response: stream, accounts: [%s]}", quote(g.subject), g.account)
	}
	return fmt.Sprintf("{service: %s, accounts: [%s]}", quote(g.subject), g.account)
}

func writeService(b *bytes.Buffer, service events.Writer, public string, epoch int, bots []identity.BotKey) {
	fmt.Fprintf(b, "  %s {\n    users: [{nkey: %s}]\n    imports: [\n", account(service), public)
	for _, g := range grants(service, epoch) {
		fmt.Fprintf(b, "      %s\n", importLine(g))
	}
	var exports []string
	for _, r := range between {
		switch service {
		case r.from:
			fmt.Fprintf(b, "      {service: {account: %s, subject: %s}}\n", account(r.to), quote(r.subject))
		case r.to:
			exports = append(exports, export(grant{subject: r.subject, account: account(r.from), many: r.many}))
		}
	}
	if service == events.Gateway {
		for _, bot := range bots {
			exports = append(exports, fmt.Sprintf("{service: %s, accounts: [%s]}", quote(botSubjects(bot.ID)), quote(botAccount(bot.ID))))
		}
	}
	fmt.Fprint(b, "    ]\n    exports: [\n")
	for _, line := range exports {
		fmt.Fprintf(b, "      %s\n", line)
	}
	fmt.Fprint(b, "    ]\n  }\n")
}

func writeBot(b *bytes.Buffer, bot identity.BotKey) {
	subjects := quote(botSubjects(bot.ID))
	fmt.Fprintf(b, "  %s {\n    users: [{nkey: %s, permissions: {publish: {allow: [%s]}, subscribe: {allow: [\"_INBOX.>\"]}}}]\n", quote(botAccount(bot.ID)), bot.Public, subjects)
	fmt.Fprintf(b, "    limits: {max_connections: %d, max_payload: %d}\n", botConnections, botPayload)
	fmt.Fprintf(b, "    imports: [{service: {account: %s, subject: %s}}]\n  }\n", account(events.Gateway), subjects)
}

func importLine(g grant) string {
	kind := "service"
	if g.stream {
		kind = "stream"
	}
	line := fmt.Sprintf("{%s: {account: %s, subject: %s}", kind, owner, quote(g.subject))
	if g.local != "" {
		line += ", to: " + quote(g.local)
	}
	return line + "}"
}

func quote(s string) string { return strconv.Quote(s) }

func list(items []string) string {
	quoted := make([]string, len(items))
	for i, s := range items {
		quoted[i] = quote(s)
	}
	return "[" + strings.Join(quoted, ", ") + "]"
}
