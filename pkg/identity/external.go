package identity

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"towpath.dev/events"
)

// maxExternal is the longest external name, in bytes.
const maxExternal = 200

var (
	// ErrExternal is wrapped where a text is no external name.
	ErrExternal = errors.New("an external name is CHANNEL:ID, such as slack:T123/U456: the immutable id that the other system gives a person, without spaces")
	// ErrExternalTaken is wrapped where an external name belongs to another actor.
	ErrExternalTaken = errors.New("another actor has this external name")
	// ErrNoPerson is wrapped where something is for persons alone.
	ErrNoPerson = errors.New("only a person has an external name")
)

// ParseExternal reads the name under which another system knows a person and returns its channel: the system's.
func ParseExternal(text string) (channel string, err error) {
	channel, id, _ := strings.Cut(text, ":")
	_, slugErr := events.ParseSlug(channel)
	odd := func(r rune) bool { return r <= ' ' || r > '~' }
	if slugErr != nil || id == "" || len(text) > maxExternal || strings.ContainsFunc(id, odd) {
		return "", fmt.Errorf("%.100q: %w", text, ErrExternal)
	}
	return channel, nil
}

// Map gives a person an external name. The error wraps ErrExternal, ErrExternalTaken, ErrNoPerson or ErrUnknownActor.
func (a *Actors) Map(ctx context.Context, external, id string) error {
	fail := func(err error) error { return fmt.Errorf("giving %s the name %.100q: %w", id, external, err) }
	if _, err := ParseExternal(external); err != nil {
		return fail(err)
	}
	actor, err := a.Get(ctx, id)
	switch {
	case err != nil:
		return fail(err)
	case actor.Erased:
		return fail(ErrUnknownActor)
	case actor.Kind != KindPerson:
		return fail(ErrNoPerson)
	}
	_, err = a.store.Update(ctx, externalKey(external), []byte(id), 0)
	if errors.Is(err, fs.ErrExist) {
		holder, _, held := a.store.Get(ctx, externalKey(external))
		if held != nil || string(holder) != id {
			return fail(errors.Join(ErrExternalTaken, held))
		}
		err = nil
	}
	if err != nil {
		return fail(err)
	}
	err = a.change(ctx, id, func(actor *Actor) {
		if !slices.Contains(actor.External, external) {
			actor.External = append(actor.External, external)
		}
	})
	if err != nil {
		return fail(errors.Join(err, a.store.Delete(ctx, externalKey(external))))
	}
	return nil
}

// Unmap takes an external name away from whoever has it. The error wraps ErrUnknownActor where nobody has.
func (a *Actors) Unmap(ctx context.Context, external string) error {
	actor, err := a.ByExternal(ctx, external)
	if err == nil {
		err = a.store.Delete(ctx, externalKey(external))
	}
	if err == nil {
		err = a.change(ctx, actor.ID, func(actor *Actor) {
			actor.External = slices.DeleteFunc(actor.External, func(e string) bool { return e == external })
		})
	}
	if err != nil {
		return fmt.Errorf("taking the name %.100q away: %w", external, err)
	}
	return nil
}

// ByExternal returns the person with an external name. The error wraps ErrUnknownActor.
func (a *Actors) ByExternal(ctx context.Context, external string) (Actor, error) {
	return a.byPointer(ctx, externalKey(external), fmt.Sprintf("%.100q", external))
}

// MaySpeakFor reports whether a bot may pass on what a person said under an external name.
func (a Actor) MaySpeakFor(external string) bool {
	return a.Kind == KindBot && slices.ContainsFunc(a.SpeaksFor, func(prefix string) bool { return strings.HasPrefix(external, prefix) })
}
