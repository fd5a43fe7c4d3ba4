package gateway

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"towpath.dev/pkg/identity"
	"towpath.dev/services/gateway/view"
)

func viewActor(a identity.Actor) view.Actor {
	return view.Actor{
		ID: a.ID, Kind: a.Kind, Name: a.Name, Email: a.Email, Roles: append([]string{}, a.Roles...), External: a.External,
		SpeaksFor: a.SpeaksFor, Tokens: len(a.Tokens), Created: a.Created.Format("2006-01-02T15:04:05Z07:00"), Erased: a.Erased,
	}
}

const (
	maxName  = 200 // bytes of a name or an address
	maxNamed = 50  // entries of a list about an actor
)

func doActors(c *call) error {
	actors, err := c.s.actors.List(c.r.Context())
	if err != nil {
		return err
	}
	list := make([]view.Actor, 0, len(actors))
	for _, a := range actors {
		list = append(list, viewActor(a))
	}
	writeJSON(c.w, http.StatusOK, list)
	return nil
}

func doAddActor(c *call) error {
	var body view.NewActor
	if err := c.decode(&body); err != nil {
		return err
	}
	switch {
	case len(body.Name) > maxName || len(body.Email) > maxName:
		return invalid("adding an actor", "", fmt.Sprintf("a name and an address have %d bytes at the most", maxName), "")
	case len(body.Roles) > maxNamed || len(body.SpeaksFor) > maxNamed:
		return invalid("adding an actor", "", fmt.Sprintf("roles and speaksFor have %d entries at the most", maxNamed), "")
	case body.Name == "":
		return invalid("adding an actor", "", "it has no name", `send {"name": "…"}`)
	case body.Kind != "" && body.Kind != identity.KindPerson && body.Kind != identity.KindBot:
		return invalid("adding an actor", body.Name, fmt.Sprintf("kind %.40q is neither person nor bot", body.Kind), "")
	case len(body.SpeaksFor) > 0 && body.Kind != identity.KindBot:
		return invalid("adding an actor", body.Name, "speaksFor is for bots", "")
	case body.Email != "" && (!strings.Contains(body.Email, "@") || body.Kind != "" && body.Kind != identity.KindPerson):
		return invalid("adding an actor", body.Name, "email is the address that a person's commits carry", "")
	}
	actor, err := c.s.addActor(c.r.Context(), body)
	if err != nil {
		return actorProblem("adding an actor", body.Name, err)
	}
	writeJSON(c.w, http.StatusCreated, viewActor(actor))
	return nil
}

// addActor makes an actor. Whoever is known by an address only as the author of commits becomes this person.
func (s *Service) addActor(ctx context.Context, body view.NewActor) (identity.Actor, error) {
	if body.Email == "" {
		return s.actors.Create(ctx, identity.Actor{Kind: body.Kind, Name: body.Name, Roles: body.Roles, SpeaksFor: body.SpeaksFor})
	}
	actor, err := s.actors.ByEmail(ctx, body.Email, body.Name)
	switch {
	case err != nil:
		return actor, err
	case len(actor.Roles) > 0 || len(actor.Tokens) > 0:
		return actor, conflict("adding an actor", body.Name, "this address belongs to "+actor.ID+" already", "towpath actor list shows who that is")
	}
	if err := s.actors.SetRoles(ctx, actor.ID, body.Roles...); err != nil {
		return actor, err
	}
	if err := s.actors.Rename(ctx, actor.ID, body.Name); err != nil {
		return actor, err
	}
	return s.actors.Get(ctx, actor.ID)
}

func (c *call) actorID() string { return c.r.PathValue("actor") }

// answerActor shows an actor after a change.
func (c *call) answerActor(what string, err error) error {
	if err != nil {
		return actorProblem(what, c.actorID(), err)
	}
	actor, err := c.s.actors.Get(c.r.Context(), c.actorID())
	if err != nil {
		return actorProblem(what, c.actorID(), err)
	}
	writeJSON(c.w, http.StatusOK, viewActor(actor))
	return nil
}

func doSetRoles(c *call) error {
	var body struct {
		Roles []string `json:"roles"`
	}
	if err := c.decode(&body); err != nil {
		return err
	}
	if len(body.Roles) > maxNamed {
		return invalid("setting roles", c.actorID(), fmt.Sprintf("there are %d roles in all", len(identity.Roles)), "")
	}
	return c.answerActor("setting roles", c.s.actors.SetRoles(c.r.Context(), c.actorID(), body.Roles...))
}

func doIssueToken(c *call) error {
	actor, err := c.s.actors.Get(c.r.Context(), c.actorID())
	if err == nil && len(actor.Tokens) >= maxNamed {
		return conflict("issuing a token", actor.ID, fmt.Sprintf("it has %d already", len(actor.Tokens)), "towpath actor token "+actor.ID+" --revoke takes them away")
	}
	var token string
	if err == nil {
		token, err = c.s.actors.IssueToken(c.r.Context(), c.actorID())
	}
	if err != nil {
		return actorProblem("issuing a token", c.actorID(), err)
	}
	writeJSON(c.w, http.StatusCreated, struct {
		Token string `json:"token"`
	}{token})
	return nil
}

func doRevokeTokens(c *call) error {
	return c.answerActor("revoking tokens", c.s.actors.RevokeTokens(c.r.Context(), c.actorID()))
}

func doMap(c *call) error {
	var body struct {
		External string `json:"external"`
	}
	if err := c.decode(&body); err != nil {
		return err
	}
	actor, err := c.s.actors.Get(c.r.Context(), c.actorID())
	if err == nil && len(actor.External) >= maxNamed {
		return conflict("mapping", actor.ID, fmt.Sprintf("it has %d external names already", len(actor.External)), "towpath actor map --remove takes one away")
	}
	return c.answerActor("mapping", c.s.actors.Map(c.r.Context(), body.External, c.actorID()))
}

func doUnmap(c *call) error {
	external := c.r.URL.Query().Get("external")
	if holder, err := c.s.actors.ByExternal(c.r.Context(), external); err == nil && holder.ID != c.actorID() {
		return conflict("unmapping", fmt.Sprintf("%.100q", external), "it is "+holder.ID+"'s", "")
	}
	return c.answerActor("unmapping", c.s.actors.Unmap(c.r.Context(), external))
}

func doErase(c *call) error {
	if c.actorID() == c.actor.ID {
		return conflict("erasing", c.actor.ID, "that is you, and nobody may be left who can add actors", "another admin does it")
	}
	return c.answerActor("erasing", c.s.actors.Erase(c.r.Context(), c.actorID()))
}

// actorProblem puts what the table of actors says into words.
func actorProblem(what, on string, err error) error {
	switch {
	case errors.Is(err, identity.ErrUnknownActor):
		return notFound(what, fmt.Sprintf("%.100q", on), "nobody has this id or name", "towpath actor list shows everybody")
	case errors.Is(err, identity.ErrRole):
		return invalid(what, on, err.Error(), "")
	case errors.Is(err, identity.ErrExternal), errors.Is(err, identity.ErrNoPerson):
		return invalid(what, on, err.Error(), "towpath actor map slack:T123/U456 ACTOR")
	case errors.Is(err, identity.ErrExternalTaken), errors.Is(err, identity.ErrEmailTaken):
		return conflict(what, on, err.Error(), "towpath actor list shows whose it is; towpath actor map --remove takes an external name away")
	}
	return err
}
