package events

import (
	"encoding/json"
	"time"
)

// Types that the gateway writes.
const (
	TypeAppCreated      Type = "dev.cdeventsx.towpath-app.created.0.1.0"
	TypeChangeMerged    Type = "dev.cdevents.change.merged.0.3.0"
	TypeCommandReceived Type = "dev.cdeventsx.towpath-command.received.0.1.0"
	TypeCommandRefused  Type = "dev.cdeventsx.towpath-command.refused.0.1.0"
	TypeCommandFinished Type = "dev.cdeventsx.towpath-command.finished.0.1.0"
	TypeReplayRequested Type = "dev.cdeventsx.towpath-replay.requested.0.1.0"
	TypeSettingChanged  Type = "dev.cdeventsx.towpath-setting.changed.0.1.0"
	TypeSecretChanged   Type = "dev.cdeventsx.towpath-secret.changed.0.1.0"
	TypePolicyPublished Type = "dev.cdeventsx.towpath-policy.published.0.1.0"
)

// AppCreated is written once for each app, at its first push or by `towpath app add`. Its subject id
// is the app. With a repository elsewhere and a poll interval, the gateway follows that branch.
type AppCreated struct {
	About
	Repository string `json:"repository,omitempty"` // URL; empty: hosted by the gateway
	Branch     string `json:"branch,omitempty"`     // tracked branch
	Poll       int    `json:"poll,omitempty"`       // seconds between looks; 0: never
	Actor      string `json:"actor"`
}

// RunStart is what the first event of a run pins. That event's subject has no run token: the run's
// number is its place among the run starts of its app, and its key makes the same push, found twice,
// one event.
type RunStart struct {
	App Slug `json:"app"`
	// RepositoryURL is where build fetches from. Empty: the gateway hosts it; package source says where and
	// with what build opens it.
	RepositoryURL    string          `json:"repositoryUrl,omitempty"`
	Ref              string          `json:"ref,omitempty"` // refs/heads/main
	OldSHA           string          `json:"oldSha,omitempty"`
	SHA              string          `json:"sha,omitempty"`
	Predecessor      int             `json:"predecessor,omitempty"` // number of the run before it on the same repository and ref
	Definition       json.RawMessage `json:"definition"`            // canonical towpath.yaml
	DefinitionDigest string          `json:"definitionDigest"`
	PolicyDigest     string          `json:"policyDigest"`
	Actor            string          `json:"actor"`             // who pushed or submitted
	Authors          []string        `json:"authors,omitempty"` // actors who wrote the commits
	Rebuild          bool            `json:"rebuild,omitempty"` // build even where the same tree was built before
}

// ChangeMerged starts a run from source: a push to a tracked branch, a merge, or a submitted commit.
// Its subject id is the commit. Build acts on it.
type ChangeMerged struct {
	About
	Repository Reference `json:"repository"`
	Run        RunStart  `json:"-"`
}

// Command is what a person or bot asked for. The verb says which of the other fields it uses.
type Command struct {
	Verb        string `json:"verb"` // approve, deny, promote, rollback, cancel, skip, hold, resume, replay, dismiss
	App         Slug   `json:"app,omitempty"`
	Run         int    `json:"run,omitempty"`
	Stage       string `json:"stage,omitempty"`
	Environment Slug   `json:"environment,omitempty"`
	Digest      string `json:"digest,omitempty"` // approve: the digest that was approved
	Slot        int    `json:"slot,omitempty"`   // rollback: the slot whose version comes back
	Actor       string `json:"actor"`
	// Roles are those that the actor had when the command came in: what allowed it is among them. Events of before they
	// were recorded have none.
	Roles   []string `json:"roles,omitempty"`
	Channel string   `json:"channel"`         // http, bus, or where the actor said it to a bot: slack
	Relay   string   `json:"relay,omitempty"` // the bot that passed it on for the actor
	Reason  string   `json:"reason,omitempty"`
	// Answer is what whoever gave the command was told: the same command sent again is told the same.
	Answer string `json:"answer,omitempty"`
	// Repeats is of an approval alone: the id of the command by which the actor gave it before. It is recorded so that
	// its id is never taken for another command; nobody acts on it.
	Repeats string `json:"repeats,omitempty"`
	// Overrules is of an approval alone: the ids of the denials that it puts an end to, of people who may not approve there
	// any more.
	Overrules []string `json:"overrules,omitempty"`
	// Groups is of a replay of all that is stuck alone: what is to be replayed, as it was when the
	// command came.
	Groups []StuckGroup `json:"groups,omitempty"`
	// Message is of a dismissal alone: the sequence of the message that was set aside.
	Message uint64 `json:"message,omitempty"`
	// WithSecrets has a rollback bring back the secrets of that time too.
	WithSecrets bool `json:"withSecrets,omitempty"`
	// From, Expires and Apps are of an environment that is to be made: from which, until when (absent: until it is
	// destroyed), and what of each app.
	From    Slug             `json:"from,omitempty"`
	Expires *time.Time       `json:"expires,omitempty"`
	Apps    []EnvironmentApp `json:"apps,omitempty"`
}

// StuckGroup is stages that are stuck for the same cause.
type StuckGroup struct {
	Cause  string       `json:"cause"` // without what differs between them: names, numbers, digests
	Stages []StuckStage `json:"stages"`
}

// StuckStage names a stage in the attempt that is stuck.
type StuckStage struct {
	App         Slug   `json:"app"`
	Run         int    `json:"run"`
	Stage       string `json:"stage"`
	Environment Slug   `json:"environment,omitempty"`
	Attempt     int    `json:"attempt"`
}

// The verbs of commands.
const (
	VerbApprove  = "approve"
	VerbDeny     = "deny"
	VerbPromote  = "promote"
	VerbRollback = "rollback"
	VerbCancel   = "cancel"
	VerbHold     = "hold"
	VerbResume   = "resume"
	VerbSkip     = "skip" // a verification that policy lets be skipped
	// VerbReplay is recorded as a command only where it is about all that is stuck; a replay of one stage
	// is an event of its own type, ReplayRequested.
	VerbReplay = "replay"
	// VerbDismiss takes a message that was set aside off what people are shown. It stays in the ledger.
	VerbDismiss = "dismiss"
	// Of environments as a whole.
	// VerbPrepareEnvironment is recorded before the settings of an environment are written, so that whoever finds them
	// knows whose they are; VerbCreateEnvironment after that.
	VerbPrepareEnvironment = "prepare-environment"
	VerbCreateEnvironment  = "create-environment"
	VerbDestroyEnvironment = "destroy-environment"
)

// CommandReceived records a command that was authorised. Its subject id is the command's id, so that
// the same command sent again is the same event. The services that it concerns act on it.
type CommandReceived struct {
	About
	Command
}

// CommandRefused records a command that was not authorised, or that made no sense. Nobody acts on it.
type CommandRefused struct {
	About
	Command
	Why  string `json:"why"`
	Do   string `json:"do,omitempty"`
	Code string `json:"code,omitempty"` // of the API's error
}

// CommandFinished is written when a command that takes a while has done what it could: a replay of all
// that is stuck. Its subject id is the command's id. Nobody acts on it.
type CommandFinished struct {
	About
	Verb string `json:"verb"`
	Why  string `json:"why,omitempty"` // why it ended before everything was tried
	// How many stages went on, stopped again, were taken over by somebody or something else, and were left
	// alone.
	WentOn    int `json:"wentOn"`
	Stopped   int `json:"stopped"`
	TakenOver int `json:"takenOver"`
	Left      int `json:"left"`
}

// ReplayRequested asks for a new attempt at a stage: attempt n+1, where n is the attempt that the
// ledger held before it. From then on results of earlier attempts no longer count. The stage's worker
// acts on it. Its subject id is the command's id.
type ReplayRequested struct {
	About
	Stage       string `json:"stage"` // build, vet, promote, verify
	Environment Slug   `json:"environment,omitempty"`
	// Attempt is the one that is replayed: where another is present by then, nothing changes. 0: whichever
	// is present.
	Attempt  int      `json:"attempt,omitempty"`
	Original string   `json:"original,omitempty"` // id of the event that ended the attempt before
	Actor    string   `json:"actor"`
	Roles    []string `json:"roles,omitempty"`   // as in Command
	Channel  string   `json:"channel,omitempty"` // as in Command
	Relay    string   `json:"relay,omitempty"`
	Reason   string   `json:"reason,omitempty"`
	Rebuild  bool     `json:"rebuild,omitempty"`
	// Policy is the digest of the policy that the run is judged by from now on; empty: the one that it was
	// judged by before. It counts only if it is the newest that was published when this was written, so
	// that a run never goes back to an older one.
	Policy string `json:"policy,omitempty"`
	// Parent is the id of the command to replay all that is stuck, where this is a part of it.
	Parent string `json:"parent,omitempty"`
	// Answer is what whoever asked was told.
	Answer string `json:"answer,omitempty"`
}

// SettingChanged says that a configuration key has a new version, or is gone. It never holds the value.
// Its subject id is <env>/<app>/<key>. Promote looks again at what waits for it.
type SettingChanged struct {
	About
	Key         string `json:"key"`
	App         Slug   `json:"app"`
	Environment Slug   `json:"environment"`
	Version     uint64 `json:"version"`
	Deleted     bool   `json:"deleted,omitempty"`
	Actor       string `json:"actor"`
	Store       string `json:"store,omitempty"` // whose version it is; empty in older events
}

// SecretChanged is SettingChanged for a secret.
type SecretChanged struct {
	About
	Key         string `json:"key"`
	App         Slug   `json:"app"`
	Environment Slug   `json:"environment"`
	Version     uint64 `json:"version"`
	Deleted     bool   `json:"deleted,omitempty"`
	Actor       string `json:"actor"`
	Store       string `json:"store,omitempty"` // whose version it is; empty in older events
}

// PolicyPublished makes a version of the platform policy known. Runs pin it by digest, and workers
// evaluate this text, not a file of their own. Its subject id is the digest.
type PolicyPublished struct {
	About
	Digest string          `json:"digest"` // sha256:<hex> of Text
	Text   json.RawMessage `json:"text"`   // canonical JSON
	Actor  string          `json:"actor"`
	Reason string          `json:"reason,omitempty"`
}

func (*AppCreated) Type() Type      { return TypeAppCreated }
func (*AppCreated) custom() any     { return nil }
func (*ChangeMerged) Type() Type    { return TypeChangeMerged }
func (b *ChangeMerged) custom() any { return &b.Run }

func (*CommandReceived) Type() Type  { return TypeCommandReceived }
func (*CommandReceived) custom() any { return nil }
func (*CommandRefused) Type() Type   { return TypeCommandRefused }
func (*CommandRefused) custom() any  { return nil }
func (*CommandFinished) Type() Type  { return TypeCommandFinished }
func (*CommandFinished) custom() any { return nil }
func (*ReplayRequested) Type() Type  { return TypeReplayRequested }
func (*ReplayRequested) custom() any { return nil }
func (*SettingChanged) Type() Type   { return TypeSettingChanged }
func (*SettingChanged) custom() any  { return nil }
func (*SecretChanged) Type() Type    { return TypeSecretChanged }
func (*SecretChanged) custom() any   { return nil }
func (*PolicyPublished) Type() Type  { return TypePolicyPublished }
func (*PolicyPublished) custom() any { return nil }
