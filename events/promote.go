package events

import "maps"

// Types that promote writes.
const (
	TypePromotionRequested  Type = "dev.cdeventsx.towpath-promotion.requested.0.1.0"
	TypePromotionApproved   Type = "dev.cdeventsx.towpath-promotion.approved.0.1.0"
	TypePromotionDenied     Type = "dev.cdeventsx.towpath-promotion.denied.0.1.0"
	TypePipelineRunQueued   Type = "dev.cdevents.pipelinerun.queued.0.3.0"
	TypePipelineRunStarted  Type = "dev.cdevents.pipelinerun.started.0.3.0"
	TypePipelineRunFinished Type = "dev.cdevents.pipelinerun.finished.0.3.0"
	TypeSlotTaken           Type = "dev.cdeventsx.towpath-slot.taken.0.1.0"
	TypeSlotDecided         Type = "dev.cdeventsx.towpath-slot.decided.0.1.0"
	TypeSlotClosed          Type = "dev.cdeventsx.towpath-slot.closed.0.1.0"
	TypeServiceDeployed     Type = "dev.cdevents.service.deployed.0.3.0"
	TypeServiceUpgraded     Type = "dev.cdevents.service.upgraded.0.3.0"
	TypeServiceRolledback   Type = "dev.cdevents.service.rolledback.0.3.0"
	TypeServiceRemoved      Type = "dev.cdevents.service.removed.0.3.0"
	TypeStageReplayed       Type = "dev.cdeventsx.towpath-stage.replayed.0.1.0"
)

// Promotion asks for, allows or refuses a promotion: it binds run, digest, environment and policy.
// The words are those of CDEvents' draft approval events.
type Promotion struct {
	ArtifactID  string `json:"artifactId"`
	Environment Slug   `json:"environment"`
	Policy      string `json:"policy"`              // digest
	Requestor   string `json:"requestor,omitempty"` // actor
	Responder   string `json:"responder,omitempty"` // actor
	Decision    string `json:"decision,omitempty"`  // approved or denied
	Reason      string `json:"reason,omitempty"`
	Wanted      int    `json:"wanted,omitempty"` // approvals that the environment asks for
}

// PromotionRequested is written when a run has reached an environment that asks for approvals. Its
// subject id is <app>/<run>/<env>. People act on it.
type PromotionRequested struct {
	About
	Promotion
}

// PromotionApproved is written for each approval that counts.
type PromotionApproved struct {
	About
	Promotion
}

// PromotionDenied is written when somebody denied the promotion, or when the verdict on the artifact
// keeps it out of the environment. The run is refused; a person's denial stands, whatever the attempt, until that person
// approves the same image there.
type PromotionDenied struct {
	About
	Promotion
}

// Waiting is the customData of PipelineRunQueued.
type Waiting struct {
	Environment Slug   `json:"environment"`
	Attempt     int    `json:"attempt"`
	Reason      string `json:"reason"`            // "DATABASE_URL has no value in prod"
	For         string `json:"for"`               // "an operator", "run hello/4", "an approver"
	Command     string `json:"command,omitempty"` // what ends the wait
}

// PipelineRunQueued is written when a promotion has to wait for something other than an approval, and
// when an approval is all that it still waits for; once each time that the reason changes.
type PipelineRunQueued struct {
	About
	PipelineName string  `json:"pipelineName,omitempty"`
	Waiting      Waiting `json:"-"`
}

// Place is the customData of PipelineRunStarted.
type Place struct {
	Environment Slug `json:"environment"`
	Attempt     int  `json:"attempt"`
	Slot        int  `json:"slot"`
}

// PipelineRunStarted is written when a promotion has its slot. Its subject id is <app>/<run>/<env>.
type PipelineRunStarted struct {
	About
	PipelineName string `json:"pipelineName"`
	URI          string `json:"uri"`
	Place        Place  `json:"-"`
}

// PipelineRunFinished ends an attempt at a promotion, its verification included. Watch makes an Error
// a stuck stage.
type PipelineRunFinished struct {
	About
	PipelineName string  `json:"pipelineName,omitempty"`
	Outcome      Outcome `json:"outcome"`
	Errors       string  `json:"errors,omitempty"`
	Result       Result  `json:"-"`
}

// Kind says why a slot was taken.
type Kind string

// The kinds of slots.
const (
	KindDeploy   Kind = "deploy"   // a run on its way
	KindRollback Kind = "rollback" // the version before comes back by itself
	KindRestore  Kind = "restore"  // an operator brought a version back
	KindRemove   Kind = "remove"   // nothing is to run
	KindCreate   Kind = "create"   // an app of an environment that somebody made from another
)

// Pins are what a deploy uses: the digest is in the slot, the versions of the settings are here. A version means something
// in the store alone that it is of, so each kind names its store, as SettingChanged does; empty: it was not noted, as in
// older events, or there are none.
type Pins struct {
	Config      map[string]uint64 `json:"config,omitempty"`  // key → version
	Secrets     map[string]uint64 `json:"secrets,omitempty"` // key → version
	ConfigStore string            `json:"configStore,omitempty"`
	SecretStore string            `json:"secretStore,omitempty"`
}

// Equal reports whether both say the same.
func (p Pins) Equal(other Pins) bool {
	return maps.Equal(p.Config, other.Config) && maps.Equal(p.Secrets, other.Secrets) &&
		(len(p.Config) == 0 || SameStore(p.ConfigStore, other.ConfigStore)) && (len(p.Secrets) == 0 || SameStore(p.SecretStore, other.SecretStore))
}

// StoreEmbedded is what the store of settings is called that is on the bus itself.
const StoreEmbedded = "embedded"

// SameStore reports whether versions of two stores can be compared: those of one, or of one that was not noted.
func SameStore(a, b string) bool { return a == b || a == "" || b == "" }

// SlotTaken claims the next slot of an app's environment. Its subject id is <app>/<env>/<slot>. Until
// the slot is decided nothing of it gets traffic.
type SlotTaken struct {
	About
	Slot        int    `json:"slot"`
	Run         int    `json:"run"`     // whose artifact
	Attempt     int    `json:"attempt"` // of promote for that run and environment; 0 on rollback and restore
	ArtifactID  string `json:"artifactId,omitempty"`
	Repository  string `json:"repository,omitempty"`
	Digest      string `json:"digest,omitempty"`
	Kind        Kind   `json:"kind"`
	Pins        Pins   `json:"pins"`
	From        int    `json:"from,omitempty"`    // rollback, restore: the slot whose version and pins these are
	Command     string `json:"command,omitempty"` // id of the command that asked for it
	Environment Slug   `json:"environment"`
	// Like is the environment whose part of the pipeline holds here, where the pipeline does not name this one.
	Like Slug `json:"like,omitempty"`
}

// Defined is the environment of the pipeline that says how the slot's version runs.
func (s SlotTaken) Defined() Slug {
	if s.Like != "" {
		return s.Like
	}
	return s.Environment
}

// Decision is the commit point of a slot.
type Decision string

// The decisions.
const (
	Live      Decision = "live"
	Abandoned Decision = "abandoned"
)

// Instance is one replica that may get traffic.
type Instance struct {
	ID      string `json:"id"`                // container name
	Address string `json:"address,omitempty"` // host:port; empty for a service without a port
	Engine  string `json:"engine,omitempty"`  // URL of the Engine that it runs on; absent in older events
}

// SlotDecided is the single commit point of a slot: live, or abandoned with why. The edge and the
// catalog are projections of the greatest live slot. Verify acts on live.
type SlotDecided struct {
	About
	Slot        int        `json:"slot"`
	Decision    Decision   `json:"decision"`
	Why         string     `json:"why,omitempty"`
	Environment Slug       `json:"environment"`
	Instances   []Instance `json:"instances,omitempty"` // of live
	// Outcome and Trouble say of an abandoned slot how its promotion ended: the decision and its reason
	// are one event, so that whoever writes PipelineRunFinished after a crash says the same.
	Outcome Outcome  `json:"outcome,omitempty"`
	Trouble *Trouble `json:"trouble,omitempty"`
}

// Closing says how a live slot ended.
type Closing string

// The closings.
const (
	Verified   Closing = "verified"
	Unverified Closing = "unverified" // its verification was skipped: it stays, and the run goes on
	Rejected   Closing = "rejected"
	Superseded Closing = "superseded"
)

// Stands reports whether what the slot holds stays, so that the run goes on and others may go back to it.
func (c Closing) Stands() bool { return c == Verified || c == Unverified }

// SlotClosed ends a live slot, after which the next may be taken.
type SlotClosed struct {
	About
	Slot        int     `json:"slot"`
	Closing     Closing `json:"closing"`
	Why         string  `json:"why,omitempty"`
	Environment Slug    `json:"environment"`
	Skipped     *Skip   `json:"skipped,omitempty"` // of unverified: who skipped the verification, and why
}

// Deployment is the content of the service events.
type Deployment struct {
	Environment Reference `json:"environment"`
	ArtifactID  string    `json:"artifactId"`
}

// Deployed is the customData of the service events.
type Deployed struct {
	Slot int  `json:"slot"`
	Run  int  `json:"run"`
	Pins Pins `json:"pins"`
}

// ServiceDeployed is the first version of an app in an environment. Its subject id is the app.
type ServiceDeployed struct {
	About
	Deployment
	Deployed Deployed `json:"-"`
}

// ServiceUpgraded is a newer version in place of another.
type ServiceUpgraded struct {
	About
	Deployment
	Deployed Deployed `json:"-"`
}

// ServiceRolledback is an earlier version that came back.
type ServiceRolledback struct {
	About
	Deployment
	Deployed Deployed `json:"-"`
}

// ServiceRemoved says that nothing of the app runs in the environment any more.
type ServiceRemoved struct {
	About
	Environment Reference `json:"environment"`
	Deployed    Deployed  `json:"-"`
}

// StageReplayed is written by the stage's worker when it takes up a replay, as attempt Attempt.
type StageReplayed struct {
	About
	Stage       string `json:"stage"`
	Environment Slug   `json:"environment,omitempty"`
	Attempt     int    `json:"attempt"`
}

func (*PromotionRequested) Type() Type    { return TypePromotionRequested }
func (*PromotionRequested) custom() any   { return nil }
func (*PromotionApproved) Type() Type     { return TypePromotionApproved }
func (*PromotionApproved) custom() any    { return nil }
func (*PromotionDenied) Type() Type       { return TypePromotionDenied }
func (*PromotionDenied) custom() any      { return nil }
func (*PipelineRunQueued) Type() Type     { return TypePipelineRunQueued }
func (b *PipelineRunQueued) custom() any  { return &b.Waiting }
func (*PipelineRunStarted) Type() Type    { return TypePipelineRunStarted }
func (b *PipelineRunStarted) custom() any { return &b.Place }

func (*PipelineRunFinished) Type() Type    { return TypePipelineRunFinished }
func (b *PipelineRunFinished) custom() any { return &b.Result }
func (*SlotTaken) Type() Type              { return TypeSlotTaken }
func (*SlotTaken) custom() any             { return nil }
func (*SlotDecided) Type() Type            { return TypeSlotDecided }
func (*SlotDecided) custom() any           { return nil }
func (*SlotClosed) Type() Type             { return TypeSlotClosed }
func (*SlotClosed) custom() any            { return nil }
func (*ServiceDeployed) Type() Type        { return TypeServiceDeployed }
func (b *ServiceDeployed) custom() any     { return &b.Deployed }
func (*ServiceUpgraded) Type() Type        { return TypeServiceUpgraded }
func (b *ServiceUpgraded) custom() any     { return &b.Deployed }
func (*ServiceRolledback) Type() Type      { return TypeServiceRolledback }
func (b *ServiceRolledback) custom() any   { return &b.Deployed }
func (*ServiceRemoved) Type() Type         { return TypeServiceRemoved }
func (b *ServiceRemoved) custom() any      { return &b.Deployed }
func (*StageReplayed) Type() Type          { return TypeStageReplayed }
func (*StageReplayed) custom() any         { return nil }
