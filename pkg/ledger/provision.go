package ledger

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"towpath.dev/events"
	"towpath.dev/pkg/pause"
)

// How long a worker may be silent about a message before it is delivered to another: what Options.AckWait of 0
// means, and the shortest that the workers of a busy machine keep up with.
const (
	DefaultAckWait = 10 * time.Second
	MinAckWait     = 500 * time.Millisecond
)

// defaultMaxDeliver is after how many deliveries the bus stops to deliver a message. Workers count for
// themselves and end far below it; it is for a worker that cannot, such as one that dies before it has
// counted. At the longest pause of 30 s it leaves an outage 16 hours. Watch is told of each message that
// stops here.
const defaultMaxDeliver = 2000

// Provision makes the streams, buckets and durable consumers that are not there and brings the others
// to what this build expects. It needs the operator's identity and may be run at each start. It never
// deletes anything.
func Provision(ctx context.Context, o Options) error {
	if o.AckWait == 0 {
		o.AckWait = DefaultAckWait
	}
	if o.AckWait < MinAckWait {
		return fmt.Errorf("provisioning: ack wait %s is too short: at least %s", o.AckWait, MinAckWait)
	}
	if o.MaxDeliver == 0 {
		o.MaxDeliver = defaultMaxDeliver
	}
	if o.Replicas != 0 && o.Replicas != 1 && o.Replicas != 3 {
		return fmt.Errorf("provisioning: %d replicas: must be 1, or 3 on a cluster of three servers", o.Replicas)
	}
	c, err := Connect(ctx, o)
	if err != nil {
		return err
	}
	defer c.Close()
	for _, s := range streams(c.epoch) {
		err := onceReady(ctx, func(ctx context.Context) error { return provisionStream(ctx, c.js, s, o.Replicas) })
		if err != nil {
			return fmt.Errorf("provisioning stream %s: %w", s.Name, roomFor(s, err))
		}
	}
	for _, d := range durables(c.epoch, o.MaxDeliver) {
		d.config.AckWait = o.AckWait
		err := onceReady(ctx, func(ctx context.Context) error { return provisionDurable(ctx, c.js, d) })
		if err != nil {
			return fmt.Errorf("provisioning consumer %s: %w", d.config.Durable, err)
		}
	}
	return nil
}

// provisionTry bounds one request; a cluster without a leader leaves it unanswered.
const provisionTry = 5 * time.Second

// onceReady repeats what a cluster cannot do yet, because its servers have not found each other or have no
// leader, until ctx ends.
func onceReady(ctx context.Context, do func(context.Context) error) error {
	for {
		try, cancel := context.WithTimeout(ctx, provisionTry)
		err := do(try)
		cancel()
		if !notReady(err) {
			return err
		}
		if stop := pause.For(ctx, 100*time.Millisecond); stop != nil {
			return errors.Join(stop, err)
		}
	}
}

// JetStream's codes for "not now": no cluster leader, no peers for the replicas, a stream whose leader is
// being elected.
const (
	codeNoPeers      jetstream.ErrorCode = 10005
	codeNotAvailable jetstream.ErrorCode = 10008
	codeOffline      jetstream.ErrorCode = 10118
)

func notReady(err error) bool {
	var api *jetstream.APIError
	if errors.As(err, &api) {
		return api.ErrorCode == codeNoPeers || api.ErrorCode == codeNotAvailable || api.ErrorCode == codeOffline
	}
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, nats.ErrNoResponders) || errors.Is(err, nats.ErrTimeout)
}

// JetStream's codes for a disk that has no room for what a stream reserves.
const (
	codeNoResources jetstream.ErrorCode = 10023
	codeNoStorage   jetstream.ErrorCode = 10047
)

// roomFor says of a stream that the bus has no room for how much it needs, and what to do.
func roomFor(s jetstream.StreamConfig, err error) error {
	var api *jetstream.APIError
	if !errors.As(err, &api) || api.ErrorCode != codeNoStorage && api.ErrorCode != codeNoResources {
		return err
	}
	needs := "room"
	if s.MaxBytes > 0 {
		needs = fmt.Sprintf("%d MiB", s.MaxBytes>>20)
	}
	return fmt.Errorf("the bus's disk has too little room: the stream reserves %s, and JetStream gives out three quarters of what was free "+
		"when the bus started; free space on the disk of its store folder, or move that to a larger one, then start it again (%w)", needs, err)
}

func provisionStream(ctx context.Context, js jetstream.JetStream, s jetstream.StreamConfig, replicas int) error {
	s.Replicas = replicas
	if replicas == 0 {
		there, err := js.Stream(ctx, s.Name)
		if err != nil && !errors.Is(err, jetstream.ErrStreamNotFound) {
			return err
		}
		s.Replicas = 1
		if err == nil {
			s.Replicas = there.CachedInfo().Config.Replicas
		}
	}
	_, err := js.CreateOrUpdateStream(ctx, s)
	return err
}

// streams returns the configuration of every stream, the buckets' included.
func streams(epoch int) []jetstream.StreamConfig {
	return append([]jetstream.StreamConfig{eventStream(epoch), logStream(), timerStream(), advisoryStream()}, bucketStreams()...)
}

// eventStream is one epoch of the ledger: each subject is written once, for ever.
func eventStream(epoch int) jetstream.StreamConfig {
	subjects := fmt.Sprintf("event.%d.>", epoch)
	return jetstream.StreamConfig{
		Name:                 events.StreamName(epoch),
		Description:          fmt.Sprintf("Towpath's ledger, epoch %d: written by the door alone", epoch),
		Subjects:             []string{subjects},
		Retention:            jetstream.LimitsPolicy,
		Storage:              jetstream.FileStorage,
		Discard:              jetstream.DiscardNew,
		DiscardNewPerSubject: true,
		MaxMsgsPerSubject:    1,
		MaxMsgs:              -1,
		MaxBytes:             -1,
		MaxMsgSize:           events.MaxEventSize,
		DenyDelete:           true,
		DenyPurge:            true,
		AllowDirect:          true,
		RePublish:            &jetstream.RePublish{Source: subjects, Destination: "live." + subjects},
	}
}

func logStream() jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name:        events.LogStream,
		Description: "output of builds, checks and releases",
		Subjects:    []string{"log.>"},
		Storage:     jetstream.FileStorage,
		Discard:     jetstream.DiscardOld,
		MaxAge:      30 * 24 * time.Hour,
		MaxBytes:    1 << 30,
		MaxMsgSize:  2 * logChunk,
		DenyDelete:  true,
		AllowDirect: true,
		RePublish:   &jetstream.RePublish{Source: "log.>", Destination: "live.log.>"},
	}
}

// durable is one durable pull consumer.
type durable struct {
	stream string
	config jetstream.ConsumerConfig
}

func durables(epoch, maxDeliver int) []durable {
	list := []durable{
		{stream: events.TimerStream, config: durableConfig(TimerDurable, []string{firedPrefix + ">"}, -1)},
		{stream: events.AdvisoryStream, config: durableConfig(AdvisoryDurable, []string{events.AdvisorySubjects}, -1)},
	}
	for _, k := range events.Consumers {
		list = append(list, durable{events.StreamName(epoch), durableConfig(k.Durable, k.Filters(epoch), maxDeliver)})
	}
	return list
}

func durableConfig(name string, filters []string, maxDeliver int) jetstream.ConsumerConfig {
	return jetstream.ConsumerConfig{
		Durable:        name,
		FilterSubjects: filters,
		DeliverPolicy:  jetstream.DeliverAllPolicy,
		AckPolicy:      jetstream.AckExplicitPolicy,
		MaxDeliver:     maxDeliver,
		MaxAckPending:  events.MaxAckPending,
		MaxWaiting:     512,
	}
}

func provisionDurable(ctx context.Context, js jetstream.JetStream, d durable) error {
	_, err := js.CreateOrUpdateConsumer(ctx, d.stream, d.config)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return fmt.Errorf("stream %s is not there: %w", d.stream, err)
	}
	return err
}
