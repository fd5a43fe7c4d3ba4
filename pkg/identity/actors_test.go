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
