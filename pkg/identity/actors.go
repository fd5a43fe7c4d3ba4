package identity

import (
	"cmp"
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
	// External are the names under which other systems know a person, such as slack:T123/U456.
	External []string `json:"external,omitempty"`
	// SpeaksFor says for whom a bot may pass commands on: everybody whose external name begins with one of these.
	SpeaksFor []string `json:"speaksFor,omitempty"`
}

// Store is the table underneath, ledger.Bucket of events.BucketActors in a running installation. Errors
// wrap fs.ErrNotExist and fs.ErrExist.
type Store interface {
	Get(ctx context.Context, key string) (value []byte, revision uint64, err error)
	// Update writes a key whose revision is known; 0: it is not there.
	Update(ctx context.Context, key string, value []byte, revision uint64) (uint64, error)
	Delete(ctx context.Context, key string) error
	// Each hands every key below these whole tokens to f, until f fails.
	Each(ctx context.Context, prefix string, f func(key string, value []byte) error) error
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
	if len(actor.SpeaksFor) > 0 && actor.Kind != KindBot {
		return Actor{}, fmt.Errorf("creating an actor: a %s speaks for nobody else; a bot does", actor.Kind)
	}
	for _, prefix := range actor.SpeaksFor {
		if _, err := ParseExternal(prefix + "x"); err != nil {
			return Actor{}, fmt.Errorf("creating an actor that speaks for %.100q: %w", prefix, err)
		}
	}
	if err := checkRoles(actor.Roles); err != nil {
		return Actor{}, fmt.Errorf("creating an actor: %w", err)
	}
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
	if err := checkRoles(roles); err != nil {
		return err
	}
	return a.change(ctx, id, func(actor *Actor) { actor.Roles = roles })
}

// Roles are all that there are.
var Roles = []string{RoleAdmin, RoleOperator, RoleApprover, RoleDeveloper, RoleAuditor, RoleBot}

// ErrRole is wrapped where a role is none of Roles.
var ErrRole = errors.New("a role is admin, operator, approver, developer, auditor or bot")

func checkRoles(roles []string) error {
	for _, r := range roles {
		if !slices.Contains(Roles, r) {
			return fmt.Errorf("role %.40q: %w", r, ErrRole)
		}
	}
	return nil
}

// Rename gives an actor another name for people.
func (a *Actors) Rename(ctx context.Context, id, name string) error {
	return a.change(ctx, id, func(actor *Actor) { actor.Name = name })
}

// List returns all actors, those that were erased too, by the time of their making.
func (a *Actors) List(ctx context.Context) ([]Actor, error) {
	var all []Actor
	err := a.store.Each(ctx, "actor", func(key string, value []byte) error {
		var actor Actor
		if err := json.Unmarshal(value, &actor); err != nil {
			return fmt.Errorf("reading %s: %w", key, err)
		}
		all = append(all, actor)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("listing the actors: %w", err)
	}
	slices.SortFunc(all, func(x, y Actor) int {
		return cmp.Or(x.Created.Compare(y.Created), strings.Compare(x.ID, y.ID))
	})
	return all, nil
}

// RevokeTokens takes all tokens of an actor away.
func (a *Actors) RevokeTokens(ctx context.Context, id string) error {
	actor, err := a.Get(ctx, id)
	if err != nil {
		return fmt.Errorf("revoking tokens: %w", err)
	}
	for _, hash := range actor.Tokens {
		if err := a.store.Delete(ctx, tokenKey(hash)); err != nil {
			return fmt.Errorf("revoking the tokens of %s: %w", id, err)
		}
	}
	return a.change(ctx, id, func(now *Actor) {
		now.Tokens = slices.DeleteFunc(now.Tokens, func(hash string) bool { return slices.Contains(actor.Tokens, hash) })
	})
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
	for _, external := range actor.External {
		err = errors.Join(err, a.store.Delete(ctx, externalKey(external)))
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

func actorKey(id string) string          { return "actor." + hashed(id) }
func tokenKey(hash string) string        { return "token." + hash }
func emailKey(email string) string       { return "email." + hashed(email) }
func externalKey(external string) string { return "external." + hashed(external) }

// hashed makes a key of any text.
func hashed(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:])
}
