package identity

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"towpath.dev/events"
)

// Roles that an actor may have.
const (
	RoleAdmin     = "admin"     // everything
	RoleOperator  = "operator"  // keeps runs moving: replay, rollback, hold, settings
	RoleApprover  = "approver"  // lets a run into an environment, or not
	RoleDeveloper = "developer" // pushes changes and sets their configuration
	RoleAuditor   = "auditor"   // reads everything, and who did it; does nothing
	RoleBot       = "bot"       // submits changes and passes on what people say
)

// Kinds of actors.
const (
	KindPerson  = "person"
	KindBot     = "bot"
	KindService = "service"
)

// Verb is something that an actor asks for. Every entry (HTTP, git, chat, CLI, bus) names one.
type Verb string

const (
	Read         Verb = "read"          // runs, events, logs, environments, configuration
	Audit        Verb = "audit"         // stories, reports and coverage, with people's names
	Submit       Verb = "submit"        // push or submit a change or an image
	CreateApp    Verb = "create-app"    // the first push of an app, or app add
	Approve      Verb = "approve"       // let a run into an environment
	Deny         Verb = "deny"          // refuse it
	Promote      Verb = "promote"       // ask for a run to go on
	Rollback     Verb = "rollback"      // bring an earlier version back
	Cancel       Verb = "cancel"        // end a run
	Replay       Verb = "replay"        // try a stuck stage again
	Skip         Verb = "skip"          // let a run pass without its verification, where policy lets it
	Hold         Verb = "hold"          // begin no new stage
	Resume       Verb = "resume"        // end a hold
	Dismiss      Verb = "dismiss"       // take a message that was set aside off the list
	SetConfig    Verb = "set-config"    // write or delete configuration
	SetSecret    Verb = "set-secret"    // write or delete a secret
	Relay        Verb = "relay"         // pass on the command of another actor, who is authorised by itself
	ManageActors Verb = "manage-actors" // roles, tokens, erasure
	// ManageEnvironments is to make an environment from another, with copies of its secrets, and to destroy it.
	ManageEnvironments Verb = "manage-environments"
	Rebuild            Verb = "rebuild" // make what follows from the ledger anew, or prove that it does
)

// Object is what the verb is about. Empty fields mean everything of their kind.
type Object struct {
	App events.Slug
	Env events.Slug
	Run int
}

// String is how an error names the object: "hello/42 in prod".
func (o Object) String() string {
	s := "everything"
	switch {
	case o.App != "" && o.Run > 0:
		s = fmt.Sprintf("%s/%d", o.App, o.Run)
	case o.App != "":
		s = string(o.App)
	}
	if o.Env != "" {
		s += " in " + string(o.Env)
	}
	return s
}

// allowed says which roles may do what; admin is not listed.
var allowed = map[Verb][]string{
	Read:         {RoleOperator, RoleApprover, RoleDeveloper, RoleAuditor, RoleBot},
	Audit:        {RoleOperator, RoleApprover, RoleDeveloper, RoleAuditor},
	Submit:       {RoleOperator, RoleDeveloper, RoleBot},
	CreateApp:    {RoleOperator, RoleDeveloper},
	Approve:      {RoleApprover},
	Deny:         {RoleApprover},
	Promote:      {RoleOperator},
	Rollback:     {RoleOperator},
	Cancel:       {RoleOperator, RoleDeveloper},
	Replay:       {RoleOperator},
	Skip:         {RoleOperator},
	Hold:         {RoleOperator},
	Resume:       {RoleOperator},
	Dismiss:      {RoleOperator},
	SetConfig:    {RoleOperator, RoleDeveloper},
	SetSecret:    {RoleOperator, RoleDeveloper},
	Relay:        {RoleBot},
	ManageActors: {},
	Rebuild:      {RoleOperator},

	ManageEnvironments: {RoleOperator},
}

// personal are the verbs that carry a person's judgement: a bot may pass them on and never mean them
// itself.
var personal = []Verb{Approve, Deny}

// ErrForbidden is wrapped by every refusal of Authorize.
var ErrForbidden = errors.New("not allowed")

// ForbiddenError says who may not do what, and who may.
type ForbiddenError struct {
	Actor  string // opaque id
	Verb   Verb
	Object Object
	Why    string
}

func (e *ForbiddenError) Error() string {
	return fmt.Sprintf("%s may not %s %s: %s", e.Actor, e.Verb, e.Object, e.Why)
}

// Unwrap makes the error match ErrForbidden.
func (e *ForbiddenError) Unwrap() error { return ErrForbidden }

// Authorize decides whether an actor may do something. It is the one check in front of every entry; it
// knows roles, not the policy's gates, which promote judges on events. The error is a *ForbiddenError.
func Authorize(actor Actor, verb Verb, object Object) error {
	refuse := func(format string, v ...any) error {
		return &ForbiddenError{Actor: actor.ID, Verb: verb, Object: object, Why: fmt.Sprintf(format, v...)}
	}
	roles, known := allowed[verb]
	switch {
	case actor.ID == "" || actor.Erased:
		return refuse("nobody is known by this id")
	case !known:
		return refuse("there is no such verb")
	case actor.Kind != KindPerson && slices.Contains(personal, verb):
		return refuse("a %s decides nothing for itself; a person must, and the %s may pass it on", actor.Kind, actor.Kind)
	case slices.Contains(actor.Roles, RoleAdmin):
		return nil
	}
	for _, role := range actor.Roles {
		if slices.Contains(roles, role) {
			return nil
		}
	}
	return refuse("it takes the role %s; an admin can grant it", strings.Join(append(slices.Clone(roles), RoleAdmin), " or "))
}
