package identity_test

import (
	"errors"
	"slices"
	"testing"

	"towpath.dev/events"
	"towpath.dev/pkg/identity"
)

func TestAuthorize(t *testing.T) {
	may := map[string][]identity.Verb{
		identity.RoleAdmin: identity.Verbs(),
		identity.RoleOperator: {
			identity.Read, identity.Audit, identity.Submit, identity.CreateApp, identity.Promote, identity.Rollback, identity.Cancel,
			identity.Replay, identity.Skip, identity.Hold, identity.Resume, identity.Dismiss, identity.SetConfig, identity.SetSecret, identity.Rebuild,
			identity.ManageEnvironments,
		},
		identity.RoleApprover:  {identity.Read, identity.Audit, identity.Approve, identity.Deny},
		identity.RoleDeveloper: {identity.Read, identity.Audit, identity.Submit, identity.CreateApp, identity.Cancel, identity.SetConfig, identity.SetSecret},
		identity.RoleAuditor:   {identity.Read, identity.Audit},
		identity.RoleBot:       {identity.Read, identity.Submit, identity.Relay},
		"":                     nil,
	}
	for role, verbs := range may {
		actor := identity.Actor{ID: "u-1", Kind: identity.KindPerson, Roles: []string{role}}
		for _, v := range identity.Verbs() {
			err := identity.Authorize(actor, v, identity.Object{App: "hello"})
			if want := slices.Contains(verbs, v); (err == nil) != want {
				t.Errorf("%s %s: %v, want allowed %v", role, v, err, want)
			}
			if err != nil && !errors.Is(err, identity.ErrForbidden) {
				t.Errorf("%s %s: %v is not ErrForbidden", role, v, err)
			}
		}
	}
}

func TestABotNeverApprovesForItself(t *testing.T) {
	for _, kind := range []string{identity.KindBot, identity.KindService, ""} {
		bot := identity.Actor{ID: "u-1", Kind: kind, Roles: []string{identity.RoleAdmin, identity.RoleApprover}}
		for _, v := range []identity.Verb{identity.Approve, identity.Deny} {
			if err := identity.Authorize(bot, v, identity.Object{}); !errors.Is(err, identity.ErrForbidden) {
				t.Errorf("%q %s: %v", kind, v, err)
			}
		}
	}
}

func TestNobodyIsRefused(t *testing.T) {
	for _, actor := range []identity.Actor{
		{Kind: identity.KindPerson, Roles: []string{identity.RoleAdmin}},
		{ID: "u-1", Kind: identity.KindPerson, Roles: []string{identity.RoleAdmin}, Erased: true},
	} {
		if err := identity.Authorize(actor, identity.Read, identity.Object{}); !errors.Is(err, identity.ErrForbidden) {
			t.Errorf("%+v: %v", actor, err)
		}
	}
	admin := identity.Actor{ID: "u-1", Kind: identity.KindPerson, Roles: []string{identity.RoleAdmin}}
	if err := identity.Authorize(admin, "conquer", identity.Object{}); !errors.Is(err, identity.ErrForbidden) {
		t.Errorf("unknown verb: %v", err)
	}
}

func TestRefusalSaysWhatIsMissing(t *testing.T) {
	err := identity.Authorize(identity.Actor{ID: "u-1", Kind: identity.KindPerson}, identity.Approve,
		identity.Object{App: events.Slug("hello"), Run: 42, Env: "prod"})
	want := "u-1 may not approve hello/42 in prod: it takes the role approver or admin; an admin can grant it"
	if err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}
