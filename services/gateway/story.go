package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"towpath.dev/events"
	"towpath.dev/pkg/audit"
	"towpath.dev/pkg/identity"
	"towpath.dev/pkg/ledger"
	"towpath.dev/pkg/ledger/fold"
	"towpath.dev/services/gateway/git"
)

// asked is what an auditor wants the story of: a run, what serves in an environment, or a digest.
type asked struct {
	app    events.Slug
	run    int
	env    events.Slug
	digest string
}

// shortestDigest is how many hexadecimal digits name an image at least.
const shortestDigest = 8

// parseAsked reads "hello/42", "hello@prod", or a digest, whole or its beginning.
func parseAsked(text string) (asked, error) {
	app, env, isPlace := strings.Cut(text, "@")
	name, number, isRun := strings.Cut(text, "/")
	slug := func(s string) events.Slug { one, _ := events.ParseSlug(s); return one }
	hex := strings.TrimPrefix(text, "sha256:")
	if place := (asked{app: slug(app), env: slug(env)}); isPlace && place.app != "" && place.env != "" {
		return place, nil
	}
	if n, err := strconv.Atoi(number); isRun && err == nil && n > 0 && slug(name) != "" {
		return asked{app: slug(name), run: n}, nil
	}
	if len(hex) >= shortestDigest && len(hex) <= 64 && strings.Trim(hex, "0123456789abcdef") == "" {
		return asked{digest: "sha256:" + hex}, nil
	}
	return asked{}, invalid("telling the story of", fmt.Sprintf("%.100q", text), "it is no run, no app@environment and no digest",
		"write hello/42, hello@prod, or sha256:… with at least 8 digits")
}

func aboutStory(c *call) (identity.Verb, identity.Object, error) {
	what, err := parseAsked(c.r.URL.Query().Get("of"))
	c.body = what
	return identity.Audit, identity.Object{App: what.app, Env: what.env, Run: what.run}, err
}

// doStory tells how what was asked about came to run: one story, or for a digest one for each run that carried it.
func doStory(c *call) error {
	what := c.body.(asked)
	var stories []audit.Story
	var err error
	switch {
	case what.digest != "":
		stories, err = c.storiesOf(what.digest)
	default:
		if c.s.fold().App(what.app) == nil {
			return c.s.noApp(what.app)
		}
		stories, err = c.story(what)
	}
	if err != nil {
		return err
	}
	people := c.s.people(c.r.Context())
	for i := range stories {
		stories[i].People(people)
	}
	writeJSON(c.w, http.StatusOK, stories)
	return nil
}

func (c *call) story(what asked) ([]audit.Story, error) {
	trail, err := c.s.trail(c.r.Context(), what.app)
	if err != nil {
		return nil, err
	}
	n := what.run
	if what.env != "" {
		if n = trail.Live(what.env); n == 0 {
			return nil, notFound("telling the story of", fmt.Sprintf("%s in %s", what.app, what.env), "nothing of it serves there",
				fmt.Sprintf("towpath env show %s; towpath runs %s", what.env, what.app))
		}
	}
	story, ok := trail.Story(n, what.env)
	if !ok {
		return nil, notFound("telling the story of", fold.Name(what.app, n), "there is no such run", "towpath runs "+string(what.app)+" lists them")
	}
	return []audit.Story{story}, nil
}

// storiesOf finds a digest in every app; a beginning must be that of one image only.
func (c *call) storiesOf(digest string) ([]audit.Story, error) {
	var stories []audit.Story
	images := map[string]bool{}
	for _, app := range c.s.fold().Apps() {
		trail, err := c.s.trail(c.r.Context(), app.Name)
		if err != nil {
			return nil, err
		}
		for _, found := range trail.Carriers(digest) {
			images[found.Digest] = true
			if story, ok := trail.Story(found.Run, ""); ok {
				stories = append(stories, story)
			}
		}
	}
	switch len(images) {
	case 0:
		return nil, notFound("telling the story of", digest, "no run carried such an image", "towpath runs lists digests; towpath audit coverage ENV lists what no run explains")
	case 1:
		return stories, nil
	}
	return nil, invalid("telling the story of", digest, fmt.Sprintf("%d images begin so", len(images)), "give more digits")
}

// trail reads what the ledger holds of an app.
func (s *Service) trail(ctx context.Context, app events.Slug) (*audit.Trail, error) {
	trail := audit.NewTrail(app)
	take := func(r ledger.Record) error { trail.Apply(r); return nil }
	if err := s.rt.Ledger.ReadApp(ctx, app, take); err != nil {
		return nil, err
	}
	return trail, s.rt.Ledger.ReadApp(ctx, "", take)
}

// people returns what puts names to ids, each looked up once. An actor that cannot be found stays an id.
func (s *Service) people(ctx context.Context) func(*audit.Person) {
	known := map[string]identity.Actor{}
	return func(p *audit.Person) {
		actor, ok := known[p.ID]
		if !ok {
			var err error
			if actor, err = s.actors.Get(ctx, p.ID); err != nil && !errors.Is(err, identity.ErrUnknownActor) {
				s.logger.Warn("an actor's name could not be read", "actor", p.ID, "err", err)
			}
			known[p.ID] = actor
		}
		p.Name, p.Kind, p.Erased = actor.Name, actor.Kind, actor.Erased
	}
}

// doReport lists every change of an environment in a period: ?from=&to= in RFC 3339.
func doReport(c *call) error {
	report := audit.Report{Environment: string(c.env), To: time.Now().UTC(), Changes: []audit.Alteration{}}
	for name, to := range map[string]*time.Time{"from": &report.From, "to": &report.To} {
		text := c.r.URL.Query().Get(name)
		if text == "" && name == "to" {
			continue
		}
		at, err := time.Parse(time.RFC3339, text)
		if err != nil {
			return invalid("reporting on", string(c.env), fmt.Sprintf("%s=%.40q is no moment", name, text), "write it as 2026-11-01T00:00:00Z")
		}
		*to = at.UTC()
	}
	if !report.From.Before(report.To) {
		return invalid("reporting on", string(c.env), "the period ends before it begins", "")
	}
	if err := c.s.knownEnvironment(c.env); err != nil {
		return err
	}
	ctx := c.r.Context()
	for _, app := range c.s.fold().Apps() {
		if app.Env(c.env).Slots.Len() == 0 {
			continue
		}
		trail, err := c.s.trail(ctx, app.Name)
		if err != nil {
			return err
		}
		changes := trail.Alterations(c.env, report.From, report.To)
		for i := range changes {
			if err := c.s.askGit(ctx, app.Name, &changes[i]); err != nil {
				return err
			}
		}
		report.Changes = append(report.Changes, changes...)
	}
	whole, err := c.s.trail(ctx, "")
	if err != nil {
		return err
	}
	report.Restores = whole.Restores(report.From, report.To)
	report.Alarms = whole.Alarms(report.From, report.To)
	report.Sort()
	report.People(c.s.people(ctx))
	writeJSON(c.w, http.StatusOK, report)
	return nil
}

// askGit completes the authors of a change of which the ledger holds only some, where the gateway has the commits.
func (s *Service) askGit(ctx context.Context, app events.Slug, change *audit.Alteration) error {
	if change.Source != audit.Partly {
		return nil
	}
	from, to := git.Commit(change.Commits.From), git.Commit(change.Commits.To)
	repository, has, err := s.git.Held(ctx, app, change.Commits.Repository, to)
	if err == nil && has && !from.None() {
		has, err = repository.Contains(ctx, from)
	}
	if err != nil || !has {
		return err
	}
	written, err := repository.AuthorsOf(ctx, from, to)
	if err != nil {
		return err
	}
	ids, err := s.authors(ctx, written)
	if err != nil {
		return err
	}
	for _, id := range ids {
		if !slices.ContainsFunc(change.Authors, func(p *audit.Person) bool { return p.ID == id }) {
			change.Authors = append(change.Authors, &audit.Person{ID: id})
		}
	}
	change.Source = audit.FromGit
	return nil
}

// inventoryBound is how long promote may take to look at an environment's Engine.
const inventoryBound = 30 * time.Second

// doCoverage lists what runs in an environment beside what its live slots explain. Promote is asked what runs there: it
// alone reaches the Engines.
func doCoverage(c *call) error {
	if err := c.s.knownEnvironment(c.env); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(c.r.Context(), inventoryBound)
	defer cancel()
	found, err := c.s.askInventory(ctx, c.env)
	switch {
	case errors.Is(err, nats.ErrNoResponders):
		found.Error = "promote, which alone reaches the Engines, is not there"
	case errors.Is(err, context.DeadlineExceeded):
		found.Error = fmt.Sprintf("promote, which alone reaches the Engines, gave no answer within %s", inventoryBound)
	case err != nil:
		return err
	}
	if found.Error != "" {
		return &problem{Status: http.StatusBadGateway, What: "looking at the Engine of", On: string(c.env), Why: found.Error, Do: "towpath doctor", Code: codeFailed}
	}
	writeJSON(c.w, http.StatusOK, audit.Cover(c.s.fold().Apps(), c.s.fold().LedgerID(), c.env, found))
	return nil
}

func (s *Service) askInventory(ctx context.Context, env events.Slug) (found audit.Inventory, err error) {
	question, err := json.Marshal(audit.InventoryRequest{Environment: env})
	if err != nil {
		return found, err
	}
	answer, err := s.rt.Ledger.Conn().RequestWithContext(ctx, events.InventorySubject, question)
	if err != nil {
		return found, fmt.Errorf("asking promote what runs in %s: %w", env, err)
	}
	if err := json.Unmarshal(answer.Data, &found); err != nil {
		return found, fmt.Errorf("asking promote what runs in %s: %w", env, err)
	}
	return found, nil
}

// knownEnvironment is an error for the name of an environment that no app has.
func (s *Service) knownEnvironment(env events.Slug) error {
	var names []string
	for _, e := range s.environments() {
		if e.Name == string(env) {
			return nil
		}
		names = append(names, e.Name)
	}
	return notFound("finding environment", string(env), "no app goes there", "there are: "+orNone(strings.Join(names, ", ")))
}
