// Package ledger is the way to the one log in which everything is decided: appending an event through
// the door, following the log in order, and the logs, timers and buckets that live beside it.
//
// It guarantees that a record handed to a caller was signed by the writer that its subject names, who may write
// events of that type, that records come in the order of their sequence, each once and none left out, and that
// an append is answered only by the bus's acknowledgement or by an event that was read. It does not decide
// anything, and it keeps no state of runs: that is package fold.
package ledger

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"towpath.dev/events"
	"towpath.dev/pkg/identity"
	"towpath.dev/pkg/pause"
)

// Options say which bus to open and as whom.
type Options struct {
	// URL of the bus, "nats://host:4222" or several with commas. Not used with InProcess.
	URL string
	// CA is a PEM file with the authorities that may vouch for servers of a "tls://" URL; empty means the
	// machine's own. Not used with InProcess.
	CA string
	// InProcess is a server in this process; nil means URL.
	InProcess nats.InProcessConnProvider
	// Service is the identity: its account, its NATS key and its signing key.
	Service string
	// Keys is the folder with <service>.nk, <service>.key and trust.json.
	Keys string
	// Trust are the keys that are accepted; nil means trust.json in Keys. Clients of one process should
	// share it, so that each signature is verified once.
	Trust *identity.Trust
	// Epoch is the epoch that is written and followed, 1 and up; 0 means 1.
	Epoch int
	// AckWait is how long a worker may be silent about a message before it is delivered to another;
	// 0 means 10 s. Only Provision uses it; workers read it from the bus and report progress at a third
	// of it.
	AckWait time.Duration
	// MaxDeliver is after how many deliveries the bus stops to deliver a message to a worker; 0 means 2000.
	// Only Provision uses it.
	MaxDeliver int
	// SetAside, where not nil, is called by Follow, in order with its apply, for each message that it
	// passes over because it is no event that this build can trust and read.
	SetAside func(Aside)
	// Replicas is on how many servers each stream is kept, 1 or 3; 0 leaves streams as they are, and makes
	// new ones with 1. Only Provision uses it.
	Replicas int
	// Logger receives the connection's ups and downs and records set aside; nil means slog.Default.
	Logger *slog.Logger
}

// Client is one identity's connection to the bus. It is safe for concurrent use.
type Client struct {
	service string
	epoch   int
	conn    *nats.Conn
	js      jetstream.JetStream
	prefix  string // of the JetStream API in this identity's account
	signer  *identity.Signer
	trust   *identity.Trust
	logger  *slog.Logger
	aside   func(Aside)

	position *position
	outage   *outage
	closed   chan struct{}
	closing  sync.Once
}

// Names of the JetStream API: in the account that owns the bus, and as the other accounts import it.
// Under its own name the server answers an importing account with error 10039.
const (
	ownerAPI  = "$JS.API"
	importAPI = "bus.API"
)

// reconnectBuffer is off: a message that could not be sent is an error that its sender sees, never
// something that is sent later behind its back.
const reconnectBuffer = -1

// replyQueue is how many messages of a reply may wait to be read. The client's own default makes
// half a megabyte of room for each read.
const replyQueue = 2 * batchMessages

// Connect opens the bus. Where the bus does not answer it tries again, with growing pauses of at most
// 2 s, until ctx ends; keys that cannot be read or are not accepted are errors at once. An open
// connection that breaks is opened again for ever, until Close.
func Connect(ctx context.Context, o Options) (*Client, error) {
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	if o.Epoch == 0 {
		o.Epoch = 1
	}
	c := &Client{
		service: o.Service, epoch: o.Epoch, prefix: importAPI, logger: o.Logger, aside: o.SetAside,
		position: newPosition(), outage: newOutage(), closed: make(chan struct{}),
	}
	if ownsBus(o.Service) {
		c.prefix = ownerAPI
	}
	key, err := identity.LoadBusKey(o.Keys, o.Service)
	if err != nil {
		return nil, err
	}
	if c.signer, err = identity.LoadSigner(o.Keys, o.Service); err != nil {
		return nil, err
	}
	if c.trust = o.Trust; c.trust == nil {
		if c.trust, err = identity.LoadTrust(filepath.Join(o.Keys, identity.TrustFile)); err != nil {
			return nil, err
		}
	}
	if err := c.dial(ctx, o, key); err != nil {
		return nil, fmt.Errorf("connecting %s to the bus %s: %w", o.Service, o.URL, err)
	}
	if c.js, err = jetstream.NewWithAPIPrefix(c.conn, c.prefix); err != nil {
		c.Close()
		return nil, fmt.Errorf("opening JetStream as %s: %w", o.Service, err)
	}
	return c, nil
}

// ownsBus reports whether an identity is in the account that owns the streams.
func ownsBus(service string) bool {
	return service == string(events.Ledger) || service == string(events.Operator)
}

func (c *Client) dial(ctx context.Context, o Options, key *identity.BusKey) error {
	dialer := &dialer{keys: o.Keys, service: o.Service, inProcess: o.InProcess}
	dialer.key.Store(key)
	options := []nats.Option{
		nats.Name("towpath " + o.Service),
		nats.Nkey(key.Public, dialer.sign),
		nats.IgnoreAuthErrorAbort(), // while keys rotate, a server may not know the new one for a moment
		nats.MaxReconnects(-1),
		nats.ReconnectWait(100 * time.Millisecond),
		nats.ReconnectBufSize(reconnectBuffer),
		nats.SyncQueueLen(replyQueue),
		nats.PingInterval(5 * time.Second),
		nats.MaxPingsOutstanding(2),
		nats.ErrorHandler(c.asyncError),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			c.outage.begin()
			if err != nil {
				c.logger.Warn("bus lost", "service", c.service, "err", err)
			}
		}),
		nats.ReconnectHandler(func(*nats.Conn) {
			c.logger.Info("bus found again", "service", c.service)
			c.position.reconnected()
		}),
	}
	if o.InProcess != nil {
		options = append(options, nats.InProcessServer(dialer))
	} else {
		options = append(options, nats.SetCustomDialer(dialer))
	}
	if o.CA != "" {
		options = append(options, nats.RootCAs(o.CA))
	}
	for rest := 50 * time.Millisecond; ; rest = min(2*rest, 2*time.Second) {
		conn, err := nats.Connect(o.URL, options...)
		if err == nil {
			c.conn = conn
			dialer.conn.Store(conn)
			return nil
		}
		if errors.Is(err, nats.ErrAuthorization) || errors.Is(err, nats.ErrAuthExpired) {
			return fmt.Errorf("%w: the bus does not know this key; write the bus's configuration again from the installation's keys folder", err)
		}
		c.logger.Debug("bus not there yet", "service", c.service, "err", err)
		if stop := pause.For(ctx, rest); stop != nil {
			return fmt.Errorf("%w (last: %w)", stop, err)
		}
	}
}

func (c *Client) asyncError(_ *nats.Conn, sub *nats.Subscription, err error) {
	if errors.Is(err, nats.ErrSlowConsumer) {
		c.position.wake()
		return
	}
	subject := ""
	if sub != nil {
		subject = sub.Subject
	}
	c.logger.Warn("bus error", "service", c.service, "subject", subject, "err", err)
}

// Conn returns the connection, for requests between services such as the edge's drain.
func (c *Client) Conn() *nats.Conn { return c.conn }

// JetStream returns the API under the name that this identity may use it. No service may create
// consumers or change streams; to read a bucket use Bucket, whose lists and watches need no consumer.
func (c *Client) JetStream() jetstream.JetStream { return c.js }

// API returns the prefix of the JetStream API's subjects in this identity's account.
func (c *Client) API() string { return c.prefix }

// Service returns the identity that the client was opened as.
func (c *Client) Service() string { return c.service }

// Epoch returns the epoch that the client writes and follows.
func (c *Client) Epoch() int { return c.epoch }

// Signer signs as the client's identity.
func (c *Client) Signer() *identity.Signer { return c.signer }

// Trust returns the keys that the client accepts.
func (c *Client) Trust() *identity.Trust { return c.trust }

// Close gives the connection up. What is under way fails with nats.ErrConnectionClosed.
func (c *Client) Close() {
	c.closing.Do(func() {
		close(c.closed)
		c.conn.Close()
	})
}
