package identity_test

import (
	"errors"
	"strings"
	"sync"
	"testing"

	"towpath.dev/events"
	"towpath.dev/pkg/identity"
	"towpath.dev/pkg/ledger"
	"towpath.dev/pkg/ledger/ledgertest"
)

func actors(t *testing.T) (*identity.Actors, *ledger.Bucket) {
	t.Helper()
	bucket := ledgertest.Start(t).Client("gateway").Bucket(events.BucketActors)
	return identity.NewActors(bucket), bucket
}

func TestActorsByTokenAndEmail(t *testing.T) {
	a, _ := actors(t)
	ctx := t.Context()
	ann, err := a.Create(ctx, identity.Actor{Name: "Ann", Email: " Ann@Example.org ", Roles: []string{identity.RoleAdmin}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := events.ParseSlug(ann.ID); err != nil {
		t.Error(err)
	}
	token, err := a.IssueToken(ctx, ann.ID)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := a.ByToken(ctx, token); err != nil || got.ID != ann.ID || got.Name != "Ann" {
		t.Errorf("by token: %+v, %v", got, err)
	}
	if _, err := a.ByToken(ctx, token+"x"); !errors.Is(err, identity.ErrUnknownActor) {
		t.Errorf("by a wrong token: %v", err)
	}
	if got, err := a.ByEmail(ctx, "ann@example.ORG", "ignored"); err != nil || got.ID != ann.ID {
		t.Errorf("by email: %+v, %v", got, err)
	}
	if _, err := a.Create(ctx, identity.Actor{Email: "ann@example.org"}); !errors.Is(err, identity.ErrEmailTaken) {
		t.Errorf("a second Ann: %v", err)
	}
	if err := a.SetRoles(ctx, ann.ID, "emperor"); err == nil {
		t.Error("an unknown role was granted")
	}
	if err := a.SetRoles(ctx, ann.ID, identity.RoleApprover); err != nil {
		t.Fatal(err)
	}
	if got, _ := a.Get(ctx, ann.ID); len(got.Roles) != 1 || got.Roles[0] != identity.RoleApprover {
		t.Errorf("roles are %v", got.Roles)
	}
}

func TestOneActorForOneAddressUnderARace(t *testing.T) {
	a, _ := actors(t)
	ids := make([]string, 20)
	var all sync.WaitGroup
	for i := range ids {
		all.Go(func() {
			actor, err := a.ByEmail(t.Context(), "bob@example.org", "Bob")
			if err != nil {
				t.Error(err)
			}
			ids[i] = actor.ID
		})
	}
	all.Wait()
	for _, id := range ids {
		if id != ids[0] {
			t.Fatalf("one address belongs to %s and %s", ids[0], id)
		}
	}
}

func TestErasedActorsLeaveNothingButTheirID(t *testing.T) {
	a, bucket := actors(t)
	ctx := t.Context()
	eve, err := a.ByEmail(ctx, "eve@example.org", "Eve Example")
	if err != nil {
		t.Fatal(err)
	}
	token, err := a.IssueToken(ctx, eve.ID)
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Erase(ctx, eve.ID); err != nil {
		t.Fatal(err)
	}
	if got, err := a.Get(ctx, eve.ID); err != nil || !got.Erased || got.Name+got.Email != "" || len(got.Tokens)+len(got.Roles) > 0 {
		t.Errorf("left: %+v, %v", got, err)
	}
	if _, err := a.ByToken(ctx, token); !errors.Is(err, identity.ErrUnknownActor) {
		t.Errorf("the token still opens something: %v", err)
	}
	if err := a.SetRoles(ctx, eve.ID, identity.RoleAdmin); !errors.Is(err, identity.ErrUnknownActor) {
		t.Errorf("an erased actor was given a role: %v", err)
	}
	entries, err := bucket.List(ctx, "")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if strings.Contains(strings.ToLower(string(e.Value)), "eve") {
			t.Errorf("%s still holds %s", e.Key, e.Value)
		}
	}
	again, err := a.ByEmail(ctx, "eve@example.org", "Eve")
	if err != nil || again.ID == eve.ID {
		t.Errorf("the address came back as %+v, %v", again, err)
	}
}

// A person is found by the names that other systems have for them, which belong to one person each and go with them.
func TestExternalNames(t *testing.T) {
	a, bucket := actors(t)
	ctx := t.Context()
	ann, err := a.Create(ctx, identity.Actor{Name: "Ann"})
	if err != nil {
		t.Fatal(err)
	}
	bob, err := a.Create(ctx, identity.Actor{Name: "Bob"})
	if err != nil {
		t.Fatal(err)
	}
	bot, err := a.Create(ctx, identity.Actor{Kind: identity.KindBot, Roles: []string{identity.RoleBot}, SpeaksFor: []string{"slack:T1/"}})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := a.Map(ctx, "slack:T1/U1", ann.ID); err != nil {
			t.Fatal(err)
		}
	}
	for external, want := range map[string]error{"slack:T1/U1": identity.ErrExternalTaken, "slack": identity.ErrExternal, "slack:": identity.ErrExternal, "Slack:x": identity.ErrExternal, "slack:a b": identity.ErrExternal, "slack:\n": identity.ErrExternal} {
		if err := a.Map(ctx, external, bob.ID); !errors.Is(err, want) {
			t.Errorf("%q for Bob: %v, want %v", external, err, want)
		}
	}
	if err := a.Map(ctx, "slack:T1/U9", bot.ID); !errors.Is(err, identity.ErrNoPerson) {
		t.Errorf("a name for a bot: %v", err)
	}
	if err := a.Map(ctx, "slack:T1/U9", "u-nobody"); !errors.Is(err, identity.ErrUnknownActor) {
		t.Errorf("a name for nobody: %v", err)
	}
	if got, err := a.ByExternal(ctx, "slack:T1/U1"); err != nil || got.ID != ann.ID || len(got.External) != 1 {
		t.Errorf("by its name: %+v, %v", got, err)
	}
	for external, want := range map[string]bool{"slack:T1/U1": true, "slack:T2/U1": false, "irc:T1/U1": false} {
		if bot.MaySpeakFor(external) != want || ann.MaySpeakFor(external) {
			t.Errorf("speaking for %s is not %v", external, want)
		}
	}
	if err := a.Unmap(ctx, "slack:T1/U1"); err != nil {
		t.Fatal(err)
	}
	if err := a.Map(ctx, "slack:T1/U1", bob.ID); err != nil {
		t.Fatal(err)
	}
	if err := a.Erase(ctx, bob.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := a.ByExternal(ctx, "slack:T1/U1"); !errors.Is(err, identity.ErrUnknownActor) {
		t.Errorf("an erased person is found: %v", err)
	}
	list, err := a.List(ctx)
	if err != nil || len(list) != 3 || list[1].ID != bob.ID && list[0].ID != bob.ID && list[2].ID != bob.ID {
		t.Errorf("list: %+v, %v", list, err)
	}
	entries, err := bucket.List(ctx, "external")
	if err != nil || len(entries) != 0 {
		t.Errorf("names are left: %v, %v", entries, err)
	}
}

func TestRevokedTokensOpenNothing(t *testing.T) {
	a, _ := actors(t)
	ann, err := a.Create(t.Context(), identity.Actor{Name: "Ann"})
	if err != nil {
		t.Fatal(err)
	}
	token, err := a.IssueToken(t.Context(), ann.ID)
	if err != nil {
		t.Fatal(err)
	}
	if err := a.RevokeTokens(t.Context(), ann.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := a.ByToken(t.Context(), token); !errors.Is(err, identity.ErrUnknownActor) {
		t.Errorf("a revoked token: %v", err)
	}
	if second, err := a.IssueToken(t.Context(), ann.ID); err != nil {
		t.Error(err)
	} else if got, err := a.ByToken(t.Context(), second); err != nil || len(got.Tokens) != 1 {
		t.Errorf("a token after it: %+v, %v", got, err)
	}
}
