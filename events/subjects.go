package events

import (
	"crypto/sha256"
	"encoding/base32"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Names on the bus. Nothing else names a stream, a bucket or a consumer.
const (
	// StreamPrefix is followed by the epoch: EVENTS_1 holds event.1.>.
	StreamPrefix = "EVENTS_"
	// LiveSubjects is where the stream republishes what it stored, under live.<subject>.
	LiveSubjects = "live.event.>"
	// LogStream holds the output of builds and checks, with limits on size and age, under
	// log.<service>.<app>.<run>.<env>.<stage>.<attempt>.
	LogStream = "LOGS"
	// TimerStream holds watch's scheduled wake-ups.
	TimerStream = "TIMERS"

	BucketActors    = "ACTORS"    // key: actor id
	BucketConfig    = "CONFIG"    // settings of the embedded store
	BucketSecrets   = "SECRETS"   // the same, encrypted
	BucketPinned    = "PINNED"    // configuration as it was read and written, for stores that forget
	BucketIssued    = "ISSUED"    // key: <env>.<app>.<slot>.<container>; accessors of tokens that apps were given for their start
	BucketDiscovery = "DISCOVERY" // key: <env>.<app>; where the edge sends requests
	BucketTries     = "TRIES"     // key: <service>.<durable>.<sequence>; messages that are being tried again
	BucketAside     = "ASIDE"     // key: <service>.<durable>.<sequence>; messages that nobody acts on, and why

	// AdvisoryStream keeps the bus's word on messages that it no longer delivers, for watch.
	AdvisoryStream = "ADVISORIES"
	// AdvisorySubjects is where the bus says so: followed by stream and consumer.
	AdvisorySubjects = "$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES.>"

	BucketNotify = "NOTIFY" // key: receiver; how far its notifications have been sent

	// DrainSubject is the edge's request to wait until an app's older instances are idle.
	DrainSubject = "edge.drain"
	// LinkSubject is notify's request to the gateway for the address of a run's page.
	LinkSubject = "gateway.link"
	// BotSubjects are where bots ask the gateway: command.<bot>.> is that bot's own.
	BotSubjects = "command.*.>"
	// InventorySubject is the gateway's question to promote: what runs on an environment's Engine?
	InventorySubject = "promote.inventory"
	// RedactSubject is verify's request to promote to take an app's secrets out of what the app printed.
	RedactSubject = "promote.redact"

	// Requests to the ledger service about the sealed log: how far it is sealed, the same after sealing
	// what is new, and hashes of the Merkle tree, from which every proof is made.
	SealStatusSubject = "seal.status"
	SealNowSubject    = "seal.now"
	SealHashesSubject = "seal.hashes"
	// SealResumeSubject is the operator's request to end an alarm, and to seal on over what is stored.
	SealResumeSubject = "seal.resume"
)

// BotSubject is where one bot sends its commands, each a request whose answer is what became of it. Nobody else can
// send there, so that it says who asks.
func BotSubject(bot Slug) string { return "command." + string(bot) + ".received" }

// BotOf returns the bot that a request on one of BotSubjects came from.
func BotOf(subject string) (Slug, error) {
	rest, ok := strings.CutPrefix(subject, "command.")
	bot, _, more := strings.Cut(rest, ".")
	if !ok || !more {
		return "", fmt.Errorf("%.100q is no bot's subject", subject)
	}
	return ParseSlug(bot)
}

// StateSubject is the gateway's request to a service to check or rebuild its projection of the ledger.
func StateSubject(service Writer) string { return "state." + string(service) }

// StreamName returns the name of the stream that holds an epoch.
func StreamName(epoch int) string { return StreamPrefix + strconv.Itoa(epoch) }

// Consumer is a durable consumer on the events stream: what wakes a service. AckWait and the number
// of tries are configuration of the worker runtime.
type Consumer struct {
	Durable string
	Service Writer
	Wakes   []Type // the types that wake it, whoever wrote them
}

// Consumers are all durable consumers.
var Consumers = []Consumer{
	{"build", Build, []Type{TypeChangeMerged, TypeReplayRequested, TypeCommandReceived}},
	{"vet", Vet, []Type{TypeArtifactPublished, TypeReplayRequested, TypeCommandReceived}},
	{"promote", Promote, []Type{
		TypeVetRunFinished, TypeTestSuiteRunFinished, TypeSettingChanged, TypeSecretChanged,
		TypeCommandReceived, TypeReplayRequested, TypeEnvironmentExpired,
	}},
	{"verify", Verify, []Type{TypeSlotDecided, TypeReplayRequested, TypeCommandReceived}},
}

// Filters returns the consumer's filter subjects in one epoch.
func (c Consumer) Filters(epoch int) []string {
	var f []string
	for _, t := range c.Wakes {
		f = append(f, fmt.Sprintf("event.%d.*.*.*.*.%s.%s.*.*", epoch, t.Subject(), t.Predicate()))
	}
	return f
}

// WokenBy reports whether events of a type, in whatever version, are delivered to the consumer.
func (c Consumer) WokenBy(t Type) bool {
	return slices.ContainsFunc(c.Wakes, func(w Type) bool {
		return w.Subject() == t.Subject() && w.Predicate() == t.Predicate()
	})
}

// Limits of the events stream and the consumers.
const (
	MaxEventSize = 256 << 10 // bytes, headers included
	// MaxAckPending is how many messages of one consumer may wait to be settled. Those that wait to be tried
	// again count, so it is far above what workers hold at once: what waits must not keep others out.
	MaxAckPending  = 16384
	MaxInHand      = 256              // messages of one consumer that one process works on
	MaxPullExpiry  = 30 * time.Second // longer pulls get nothing across accounts
	MaxBatch       = 256              // events in one batch read; larger ones block appends
	SignatureName  = "Towpath-Signature"
	MaxRunsDefined = 64 << 10 // bytes of a canonical definition
)

// at makes a subject whose tokens follow the type.
func at(epoch int, w Writer, t Type, app Slug, run int, env Slug, key Slug, attempt int) Subject {
	return Subject{
		Epoch: epoch, Writer: w, App: app, Run: run, Env: env,
		Subject: t.Subject(), Predicate: t.Predicate(), Key: key, Attempt: attempt,
	}
}

// AppSubject is where app.created is stored: once for each app.
func AppSubject(epoch int, app Slug) Subject {
	return at(epoch, Gateway, TypeAppCreated, app, 0, "", "", 0)
}

// RunStartSubject is where a run's first event is stored. The key makes one change one run: repository
// and ref, the number of the run before it there, and what is new (a commit, or a digest).
func RunStartSubject(epoch int, t Type, app Slug, repository, ref string, predecessor int, what string) Subject {
	key := Key(repository, ref, strconv.Itoa(predecessor), what)
	return at(epoch, Gateway, t, app, 0, "", key, 0)
}

// CommandSubject is where a command (t is command.received, command.refused or replay.requested) is
// stored; the same id sent again is the same event. App is empty for a command about everything.
func CommandSubject(epoch int, t Type, app Slug, run int, env Slug, id string) Subject {
	return at(epoch, Gateway, t, app, run, env, Key(id), 0)
}

// SettingSubject is where setting.changed or secret.changed is stored: once for each version of a key in a store.
func SettingSubject(epoch int, t Type, app, env Slug, key, store string, version uint64) Subject {
	parts := []string{key, strconv.FormatUint(version, 10)}
	if store != "" && store != StoreEmbedded {
		parts = append(parts, store)
	}
	return at(epoch, Gateway, t, app, 0, env, Key(parts...), 0)
}

// PolicySubject is where policy.published is stored; serial counts the publications, so that an earlier
// text can come back.
func PolicySubject(epoch, serial int) Subject {
	return at(epoch, Gateway, TypePolicyPublished, "", 0, "", "", serial)
}

// BuildSubject is where build stores events of a run's attempt. The key is for artifact.signed: the
// kind of statement.
func BuildSubject(epoch int, t Type, app Slug, run int, key Slug, attempt int) Subject {
	return at(epoch, Build, t, app, run, "", key, attempt)
}

// VetSubject is where vet stores events of a run's attempt.
func VetSubject(epoch int, t Type, app Slug, run int, key Slug, attempt int) Subject {
	return at(epoch, Vet, t, app, run, "", key, attempt)
}

// PromoteSubject is where promote stores events of a run's attempt in an environment. The key tells
// apart approvers and reasons for waiting.
func PromoteSubject(epoch int, t Type, app Slug, run int, env, key Slug, attempt int) Subject {
	return at(epoch, Promote, t, app, run, env, key, attempt)
}

// SlotSubject is where slot.taken, slot.decided and slot.closed are stored: once for each number of
// an app's environment, whichever run it is for.
func SlotSubject(epoch int, t Type, app, env Slug, slot int) Subject {
	return at(epoch, Promote, t, app, 0, env, Slug(strconv.Itoa(slot)), 0)
}

// ServiceSubject is where service.deployed, upgraded, rolledback and removed are stored: once for each
// slot.
func ServiceSubject(epoch int, t Type, app Slug, run int, env Slug, slot int) Subject {
	return at(epoch, Promote, t, app, run, env, Slug(strconv.Itoa(slot)), 0)
}

// VerifySubject is where verify stores events about a slot. Check is the check's place, from 1; 0
// for the suite itself.
func VerifySubject(epoch int, t Type, app Slug, run int, env Slug, slot, check, attempt int) Subject {
	key := "slot-" + strconv.Itoa(slot)
	if check > 0 {
		key += "-check-" + strconv.Itoa(check)
	}
	return at(epoch, Verify, t, app, run, env, Slug(key), attempt)
}

// StageReplayedSubject is where the worker of a stage says that it took up a replay.
func StageReplayedSubject(epoch int, w Writer, app Slug, run int, env Slug, stage string, attempt int) Subject {
	return at(epoch, w, TypeStageReplayed, app, run, env, Slug(stage), attempt)
}

// StuckSubject is where stage.stuck is stored: for the nth time (1 and up) that an attempt at a stage is found
// stuck. It is found again where its worker went on, and fell silent once more.
func StuckSubject(epoch int, app Slug, run int, env Slug, stage string, attempt, nth int) Subject {
	key := Slug(stage)
	if nth > 1 {
		key = Slug(stage + "-" + strconv.Itoa(nth))
	}
	return at(epoch, Watch, TypeStageStuck, app, run, env, key, attempt)
}

// CheckpointSubject is where checkpoint.sealed is stored; serial counts the checkpoints, so that of two
// sealers at once one finds that the other was first.
func CheckpointSubject(epoch, serial int) Subject {
	return at(epoch, Ledger, TypeCheckpointSealed, "", 0, "", "", serial)
}

// Key returns a slug made of a hash of its parts, for texts that are no slugs themselves.
func Key(parts ...string) Slug {
	h := sha256.New()
	for _, p := range parts {
		fmt.Fprintf(h, "%d:%s,", len(p), p)
	}
	sum := base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(h.Sum(nil)[:20])
	return Slug(strings.ToLower(sum))
}
