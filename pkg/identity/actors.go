package identity

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"
)

// Actor is a person, a bot or a service that asks for things. Only its ID appears in events; the rest
// lives in the table of actors, from which it can be erased.
type Actor struct {
	ID      string    `json:"id"` // opaque and stable, usable as a subject's token
	Kind    string    `json:"kind"`
	Name    string    `json:"name,omitempty"`
	Email   string    `json:"email,omitempty"`
	Roles   []string  `json:"roles,omitempty"`
	Created time.Time `json:"created"`
	Erased  bool      `json:"erased,omitempty"`
	// Tokens are the SHA-256 hashes of the tokens that open this identity.
	Tokens []string `json:"tokens,omitempty"`
}

// Store is the table underneath, ledger.Bucket of events.BucketActors in a running installation. Errors
// wrap fs.ErrNotExist and fs.ErrExist.
type Store interface {
	Get(ctx context.Context, key string) (value []byte, revision uint64, err error)
	// Update writes a key whose revision is known; 0: it is not there.
	Update(ctx context.Context, key string, value []byte, revision uint64) (uint64, error)
	Delete(ctx context.Context, key string) error
}

// Actors is the table of actors. It is safe for concurrent use.
type Actors struct{ store Store }

// NewActors returns the actors in a store. It does no IO.
func NewActors(store Store) *Actors { return &Actors{store} }

// ErrUnknownActor is wrapped where no actor has this id, token or address.
var ErrUnknownActor = errors.New("unknown actor")

// ErrEmailTaken is wrapped where another actor has the address already.
var ErrEmailTaken = errors.New("another actor has this email address")

// Create adds an actor with a new ID and returns it. Kind defaults to person. The error wraps
// ErrEmailTaken where the address is in use.
func (a *Actors) Create(ctx context.Context, actor Actor) (Actor, error) {
	if actor.Kind == "" {
		actor.Kind = KindPerson
	}
	if !slices.Contains([]string{KindPerson, KindBot, KindService}, actor.Kind) {
		return Actor{}, fmt.Errorf("creating an actor: kind %q is not person, bot or service", actor.Kind)
	}
	actor.ID, actor.Created = newActorID(), time.Now().UTC().Truncate(time.Second)
	actor.Email = canonicalEmail(actor.Email)
	if err := a.put(ctx, actor, 0); err != nil {
		return Actor{}, fmt.Errorf("creating an actor: %w", err)
	}
	if actor.Email == "" {
		return actor, nil
	}
	err := a.claimEmail(ctx, actor)
	if err == nil {
		return actor, nil
	}
	return Actor{}, errors.Join(fmt.Errorf("creating an actor: %w", err), a.store.Delete(ctx, actorKey(actor.ID)))
}

// claimEmail points the address at the actor, unless another one has it.
func (a *Actors) claimEmail(ctx context.Context, actor Actor) error {
	_, err := a.store.Update(ctx, emailKey(actor.Email), []byte(actor.ID), 0)
	if errors.Is(err, fs.ErrExist) {
		return ErrEmailTaken
	}
	return err
}

// Get returns the actor with an id. The error wraps ErrUnknownActor.
func (a *Actors) Get(ctx context.Context, id string) (Actor, error) {
	actor, _, err := a.get(ctx, id)
	return actor, err
}

func (a *Actors) get(ctx context.Context, id string) (Actor, uint64, error) {
	value, revision, err := a.store.Get(ctx, actorKey(id))
	if errors.Is(err, fs.ErrNotExist) {
		return Actor{}, 0, fmt.Errorf("actor %.64q: %w", id, ErrUnknownActor)
	}
	if err != nil {
		return Actor{}, 0, fmt.Errorf("reading actor %s: %w", id, err)
	}
	var actor Actor
	if err := json.Unmarshal(value, &actor); err != nil {
		return Actor{}, 0, fmt.Errorf("reading actor %s: %w", id, err)
	}
	return actor, revision, nil
}

// ByToken returns the actor that a token opens. The error wraps ErrUnknownActor.
func (a *Actors) ByToken(ctx context.Context, token string) (Actor, error) {
	return a.byPointer(ctx, tokenKey(hashed(token)), "this token")
}

// ByEmail returns the actor with an address, as found in a commit; one that nobody has yet is given to
// a new person without roles.
func (a *Actors) ByEmail(ctx context.Context, email, name string) (Actor, error) {
	if canonicalEmail(email) == "" {
		return Actor{}, fmt.Errorf("an empty email address: %w", ErrUnknownActor)
	}
	for {
		actor, err := a.byPointer(ctx, emailKey(canonicalEmail(email)), "this address")
		if !errors.Is(err, ErrUnknownActor) {
			return actor, err
		}
		actor, err = a.Create(ctx, Actor{Kind: KindPerson, Name: name, Email: email})
		if !errors.Is(err, ErrEmailTaken) {
			return actor, err
		}
	}
}

func (a *Actors) byPointer(ctx context.Context, key, what string) (Actor, error) {
	id, _, err := a.store.Get(ctx, key)
	if errors.Is(err, fs.ErrNotExist) {
		return Actor{}, fmt.Errorf("%s: %w", what, ErrUnknownActor)
	}
	if err != nil {
		return Actor{}, fmt.Errorf("looking an actor up: %w", err)
	}
	return a.Get(ctx, string(id))
}

// IssueToken returns a new token that opens the actor. It is shown once: only its hash is kept.
func (a *Actors) IssueToken(ctx context.Context, id string) (token string, err error) {
	random := make([]byte, 32)
	rand.Read(random)
	token = "tp_" + base64.RawURLEncoding.EncodeToString(random)
	hash := hashed(token)
	err = a.change(ctx, id, func(actor *Actor) { actor.Tokens = append(actor.Tokens, hash) })
	if err == nil {
		_, err = a.store.Update(ctx, tokenKey(hash), []byte(id), 0)
	}
	if err != nil {
		return "", fmt.Errorf("issuing a token: %w", err)
	}
	return token, nil
}

// SetRoles replaces an actor's roles.
func (a *Actors) SetRoles(ctx context.Context, id string, roles ...string) error {
	for _, r := range roles {
		if !slices.Contains([]string{RoleAdmin, RoleOperator, RoleApprover, RoleDeveloper, RoleBot}, r) {
			return fmt.Errorf("role %q is none of admin, operator, approver, developer, bot", r)
		}
	}
	return a.change(ctx, id, func(actor *Actor) { actor.Roles = roles })
}

// Erase takes everything but the id away: name, address, roles and tokens. What the actor did stays in
// the ledger under an id that points to nobody.
func (a *Actors) Erase(ctx context.Context, id string) error {
	actor, err := a.Get(ctx, id)
	if err != nil {
		return fmt.Errorf("erasing: %w", err)
	}
	for _, hash := range actor.Tokens {
		err = errors.Join(err, a.store.Delete(ctx, tokenKey(hash)))
	}
	if actor.Email != "" {
		err = errors.Join(err, a.store.Delete(ctx, emailKey(actor.Email)))
	}
	if err == nil {
		err = a.change(ctx, id, func(actor *Actor) {
			*actor = Actor{ID: id, Kind: actor.Kind, Created: actor.Created, Erased: true}
		})
	}
	if err != nil {
		return fmt.Errorf("erasing %s: %w", id, err)
	}
	return nil
}

// change applies f to the newest version of an actor.
func (a *Actors) change(ctx context.Context, id string, f func(*Actor)) error {
	for {
		actor, revision, err := a.get(ctx, id)
		if err != nil {
			return err
		}
		if actor.Erased {
			return fmt.Errorf("actor %s was erased: %w", id, ErrUnknownActor)
		}
		f(&actor)
		if err := a.put(ctx, actor, revision); !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
}

func (a *Actors) put(ctx context.Context, actor Actor, revision uint64) error {
	value, err := json.Marshal(actor)
	if err != nil {
		return err
	}
	_, err = a.store.Update(ctx, actorKey(actor.ID), value, revision)
	return err
}

func newActorID() string {
	random := make([]byte, 10)
	rand.Read(random)
	return "u-" + strings.ToLower(base32.StdEncoding.EncodeToString(random))
}

func canonicalEmail(email string) string { return strings.ToLower(strings.TrimSpace(email)) }

func actorKey(id string) string    { return "actor." + hashed(id) }
func tokenKey(hash string) string  { return "token." + hash }
func emailKey(email string) string { return "email." + hashed(email) }

// hashed makes a key of any text.
func hashed(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:])
}
