package gateway

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
	"unicode"

	"towpath.dev/events"
	"towpath.dev/pkg/identity"
	"towpath.dev/pkg/source"
	"towpath.dev/services/gateway/git"
	"towpath.dev/services/gateway/hook"
)

// pushes are those under way, by the word that their hooks know them by.
type pushes struct {
	mu     sync.Mutex
	bySign map[string]*push
}

type push struct {
	app   events.Slug
	actor identity.Actor
	first bool // it makes the app
}

func (p *pushes) begin(one *push) (sign string, end func()) {
	sign = rand.Text()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.bySign == nil {
		p.bySign = map[string]*push{}
	}
	p.bySign[sign] = one
	return sign, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.bySign, sign)
	}
}

func (p *pushes) find(sign string) *push {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.bySign[sign]
}

// aboutGit says what a git client wants: to read, to push, or to make the app by pushing.
func aboutGit(c *call) (identity.Verb, identity.Object, error) {
	name, ok := strings.CutSuffix(c.r.PathValue("repository"), ".git")
	app, err := events.ParseSlug(name)
	if !ok || err != nil {
		return "", identity.Object{}, notFound("finding the repository", c.r.PathValue("repository"), "a repository is called <app>.git, lower-case letters, digits and inner hyphens", "")
	}
	c.app = app
	switch wanted := c.gitService(); {
	case wanted == git.UploadPack:
		return identity.Read, identity.Object{App: app}, nil
	case wanted != git.ReceivePack:
		return "", identity.Object{}, notFound("speaking git", string(app), "only git's smart HTTP protocol is spoken here", "use git 1.6.6 or newer")
	case c.s.fold().App(app) == nil:
		return identity.CreateApp, identity.Object{App: app}, nil
	}
	return identity.Submit, identity.Object{App: app}, nil
}

// gitService is which of git's services the request is for.
func (c *call) gitService() git.Service {
	if strings.HasSuffix(c.r.URL.Path, "/info/refs") {
		return git.Service(c.r.URL.Query().Get("service"))
	}
	return git.Service(c.r.URL.Path[strings.LastIndexByte(c.r.URL.Path, '/')+1:])
}

// doGit hands the request to git.
func doGit(c *call) error {
	_, path, _ := strings.Cut(c.r.URL.Path, ".git")
	if c.gitService() == git.UploadPack {
		if !c.s.git.Exists(c.app) {
			return notFound("finding the repository of", string(c.app), "nothing was pushed to it", "git push makes it")
		}
		return c.serveGit(c.s.git.Repository(c.app), path, git.Push{})
	}
	app := c.s.fold().App(c.app)
	if app != nil && app.Repository != "" {
		return conflict("pushing to", string(c.app), "its repository is "+app.Repository, "push there; it is followed from there")
	}
	if err := c.s.ledgerAnswers(c.r.Context()); err != nil {
		return err
	}
	repository, done, err := c.s.git.Use(c.r.Context(), c.app)
	if err != nil {
		return err
	}
	defer done()
	sign, end := c.s.pushes.begin(&push{app: c.app, actor: c.actor, first: app == nil})
	defer end()
	return c.serveGit(repository, path, git.Push{By: c.actor.ID, ID: events.NewID(), Env: []string{
		hook.SocketVariable + "=" + c.s.socket, hook.PushVariable + "=" + sign,
	}})
}

// serveGit logs what went wrong: the client has been told by git, or is gone.
func (c *call) serveGit(repository git.Repository, path string, by git.Push) error {
	if err := repository.Serve(c.w, c.r, c.app, path, by); err != nil {
		c.s.logger.Warn("git request ended badly", "app", c.app, "path", path, "actor", c.actor.ID, "err", err)
	}
	return nil
}

// ledgerAnswers makes sure, before a push is taken in, that it can be recorded.
func (s *Service) ledgerAnswers(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	_, err := s.rt.Ledger.Read(ctx, s.fold().Seq(), discardRecord)
	return err
}

// asService lets a service of this installation read a hosted repository.
func (s *Service) asService(r *http.Request, app events.Slug) (identity.Actor, bool) {
	user, password, ok := r.BasicAuth()
	if !ok || user != source.User {
		return identity.Actor{}, false
	}
	service, err := source.Verify(s.rt.Ledger.Trust(), app, password, time.Now())
	if err != nil {
		s.logger.Warn("a service's password was refused", "app", app, "err", err)
		return identity.Actor{}, false
	}
	return identity.Actor{ID: service, Kind: identity.KindService, Roles: []string{identity.RoleBot}}, true
}

// longestSocket is how long the path of a socket may be on every system.
const longestSocket = 100

// listenForHooks opens the socket at which git's hooks find the gateway.
func (s *Service) listenForHooks() (net.Listener, func(), error) {
	path := filepath.Join(s.cfg.repositories(), "hook.sock")
	clean := func() { os.Remove(path) }
	if abs, err := filepath.Abs(path); err != nil || len(abs) > longestSocket {
		folder, err := os.MkdirTemp("", "towpath-")
		if err != nil {
			return nil, nil, fmt.Errorf("making a folder for the hooks' socket: %w", err)
		}
		path = filepath.Join(folder, "hook.sock")
		clean = func() { os.RemoveAll(folder) }
	} else {
		path = abs
		os.Remove(path) // of a process that was killed: the data folder has one gateway
	}
	listener, err := net.Listen("unix", path)
	if err == nil {
		err = os.Chmod(path, 0o600)
	}
	if err != nil {
		clean()
		return nil, nil, fmt.Errorf("listening for git's hooks: %w", err)
	}
	s.socket = path
	return listener, clean, nil
}

// hookRoutes are the ways in for git's hooks, on a socket that only the gateway's account can open. A push that came in
// through a route, and was authorised there, has a name that nobody else knows; without it no hook is answered.
func (s *Service) hookRoutes() map[string]func(context.Context, *push, hook.Request, []git.Update) hook.Answer {
	return map[string]func(context.Context, *push, hook.Request, []git.Update) hook.Answer{
		"pre-receive": s.preReceive, "post-receive": s.postReceive,
	}
}

// hooks answers git's hooks.
func (s *Service) hooks() http.Handler {
	mux := http.NewServeMux()
	for name, judge := range s.hookRoutes() {
		mux.HandleFunc("POST /"+name, func(w http.ResponseWriter, r *http.Request) {
			var request hook.Request
			if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 8<<20)).Decode(&request); err != nil {
				http.Error(w, err.Error(), http.StatusBadRequest)
				return
			}
			one := s.pushes.find(request.Push)
			if one == nil {
				http.Error(w, "no such push is under way", http.StatusForbidden)
				return
			}
			writeJSON(w, http.StatusOK, judge(r.Context(), one, request, parseUpdates(request.Updates)))
		})
	}
	return mux
}

// parseUpdates reads what git writes to its hooks: lines "old new reference".
func parseUpdates(text string) []git.Update {
	var updates []git.Update
	for line := range strings.Lines(text) {
		if fields := strings.Fields(line); len(fields) == 3 {
			updates = append(updates, git.Update{Old: git.Commit(fields[0]), New: git.Commit(fields[1]), Ref: fields[2]})
		}
	}
	return updates
}

// preReceive judges a push whose objects are still set aside.
func (s *Service) preReceive(ctx context.Context, one *push, request hook.Request, updates []git.Update) hook.Answer {
	refuse := func(err error) hook.Answer {
		return hook.Answer{Text: fmt.Sprintf("Towpath could not read this push: %v\n", err), Refused: true}
	}
	repository, err := s.git.Repository(one.app).Within(git.Quarantine{Objects: request.Objects, Alternates: request.Alternates})
	if err != nil {
		return refuse(err)
	}
	founds, err := readDefinitions(ctx, repository, updates)
	if err != nil {
		return refuse(err)
	}
	why := judgePush(one.app, s.fold().App(one.app), founds)
	if len(why) == 0 {
		return s.beforeDeletion(ctx, one.app, updates)
	}
	text := fmt.Sprintf("\nTowpath refuses this push to %s:\n\n", one.app)
	for _, line := range why {
		text += "  " + line + "\n"
	}
	return hook.Answer{Text: text + "\n", Refused: true}
}

// beforeDeletion records what waits of a branch, since git's log of it goes with it.
func (s *Service) beforeDeletion(ctx context.Context, app events.Slug, updates []git.Update) hook.Answer {
	for _, u := range updates {
		if u.Branch() == "" || !u.New.None() {
			continue
		}
		if _, err := s.reconcile(ctx, branchName{app, u.Ref}, ""); err != nil {
			return hook.Answer{Text: fmt.Sprintf("Towpath cannot let %s go: an earlier push to it is not recorded yet: %v\n", u.Branch(), err), Refused: true}
		}
	}
	return hook.Answer{}
}

// postReceive records what git has taken in and tells the person what comes.
func (s *Service) postReceive(ctx context.Context, one *push, _ hook.Request, updates []git.Update) hook.Answer {
	var text strings.Builder
	text.WriteByte('\n')
	for _, u := range updates {
		if u.New.None() {
			s.journal.forget(branchName{one.app, u.Ref})
		}
		if u.Branch() == "" || u.New.None() {
			fmt.Fprintf(&text, "  %s\n", untracked(one.app, found{update: u}))
			continue
		}
		outcomes, err := s.reconcile(ctx, branchName{one.app, u.Ref}, u.New)
		if err != nil {
			s.logger.Error("a push is taken in and not recorded yet", "app", one.app, "branch", u.Branch(), "err", err)
			fmt.Fprintf(&text, "  %s is taken in, but the ledger does not answer now (%v).\n  Nothing is lost: the run starts when it does. towpath runs --app %s\n",
				u.New.Short(), problemOf(err).Why, one.app)
			continue
		}
		s.report(ctx, &text, one, u, outcomes)
	}
	text.WriteByte('\n')
	return hook.Answer{Text: text.String()}
}

// report writes the lines for one branch of a push.
func (s *Service) report(ctx context.Context, text *strings.Builder, one *push, u git.Update, outcomes []outcome) {
	repository := s.git.Repository(one.app)
	for _, o := range outcomes {
		if o.update.New != u.New {
			continue
		}
		if o.run == nil {
			fmt.Fprintf(text, "  %s\n", untracked(one.app, o.found))
			return
		}
		if one.first {
			fmt.Fprintf(text, "  %s is new here\n", one.app)
			one.first = false
		}
		fmt.Fprintf(text, "  %s  %s %s\n", o.run.Name(), u.New.Short(), shorten(o.change.Subject))
		fmt.Fprintf(text, "  %s\n", s.runURL(one.app, o.run.N))
		if forced, err := repository.IsForced(ctx, u.Old, u.New); err == nil && forced {
			fmt.Fprintf(text, "  this push rewrote %s: what it threw away stays in its runs\n", u.Branch())
		}
		for _, line := range append(s.blockers(ctx, o.run), s.undeclaredReads(ctx, repository, o.run)...) {
			fmt.Fprintf(text, "  %s\n", line)
		}
		return
	}
	// Another push to the branch, right after this one, has recorded both.
	if app := s.fold().App(one.app); app != nil {
		for run := range app.Runs.All() {
			if run.Start.SHA == string(u.New) && run.Start.Ref == u.Ref {
				fmt.Fprintf(text, "  %s  %s\n  %s\n", run.Name(), u.New.Short(), s.runURL(one.app, run.N))
				return
			}
		}
	}
	fmt.Fprintf(text, "  %s starts no run\n", u.Branch())
}

// shorten cuts a commit's subject to what fits beside the run's name.
func shorten(subject string) string {
	const longest = 60
	if runes := []rune(subject); len(runes) > longest {
		subject = string(runes[:longest]) + "…"
	}
	return strings.Map(func(c rune) rune {
		if unicode.IsControl(c) {
			return ' '
		}
		return c
	}, subject)
}

// errHookCommand says that git could not run the gateway's hooks.
var errHookCommand = errors.New("the hook command cannot be run")

// hookCommand is what git runs.
func (c Config) hookCommand() ([]string, error) {
	if len(c.HookCommand) > 0 {
		return c.HookCommand, nil
	}
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errHookCommand, err)
	}
	return []string{self, "hook"}, nil
}
