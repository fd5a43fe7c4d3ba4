package gateway

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"towpath.dev/events"
	"towpath.dev/pkg/identity"
	"towpath.dev/pkg/ledger/fold"
	"towpath.dev/pkg/pipeline"
	"towpath.dev/pkg/registry"
	"towpath.dev/pkg/worker/boundary"
	"towpath.dev/services/gateway/git"
	"towpath.dev/services/gateway/view"
)

func aboutSubmit(c *call) (identity.Verb, identity.Object, error) {
	var body view.Submission
	if err := c.decode(&body); err != nil {
		return "", identity.Object{}, err
	}
	c.body = body
	return identity.Submit, identity.Object{App: events.Slug(body.App)}, nil
}

func doSubmit(c *call) error {
	body := c.body.(view.Submission)
	boundary.Reached(events.Gateway, boundary.Received, events.Slug(body.App))
	defer boundary.Reached(events.Gateway, boundary.Ack, events.Slug(body.App))
	var err error
	var what change
	if body.Image != "" {
		what, err = c.s.submittedImage(c.r.Context(), body)
	} else {
		what, err = c.s.submittedCommit(c.r.Context(), body)
	}
	if err != nil {
		return err
	}
	what.actor, what.rebuild = c.actor.ID, body.Rebuild
	// The name in towpath.yaml may be another than the caller gave, and making an app is more than submitting to it.
	verb := identity.Submit
	if c.s.fold().App(what.app) == nil {
		verb = identity.CreateApp
	}
	if err := identity.Authorize(c.actor, verb, identity.Object{App: what.app}); err != nil {
		return err
	}
	one, err := c.s.start(context.WithoutCancel(c.r.Context()), what)
	if err != nil {
		return err
	}
	status := http.StatusOK
	if one.fresh {
		status = http.StatusCreated
	}
	writeJSON(c.w, status, view.Submitted{Run: one.run.Name(), URL: c.s.runURL(one.run.App, one.run.N), Blockers: c.s.blockers(c.r.Context(), one.run)})
	return nil
}

// submittedCommit looks at a commit and says what it changes.
func (s *Service) submittedCommit(ctx context.Context, body view.Submission) (change, error) {
	if body.Repo == "" {
		return s.submittedHosted(ctx, body)
	}
	remote, ref, commit, err := s.named(ctx, body)
	if err != nil {
		return change{}, err
	}
	return s.elsewhere(ctx, remote, ref, commit, body.App)
}

// named is the repository, branch and commit that a submission names; without a commit it is the branch's newest.
func (s *Service) named(ctx context.Context, body view.Submission) (remote git.Remote, ref string, commit git.Commit, err error) {
	if remote, err = s.remote(body.Repo); err != nil {
		return remote, "", "", err
	}
	if ref, err = refOf(body.Ref); err != nil {
		return remote, "", "", err
	}
	switch {
	case body.Commit != "":
		if commit, err = git.ParseCommit(body.Commit); err != nil {
			err = invalid("submitting commit", fmt.Sprintf("%.80q", body.Commit), err.Error(), "git rev-parse HEAD gives the full id")
		}
	case ref == "":
		err = invalid("submitting", remote.String(), "neither a commit nor a branch is named", "add --commit SHA, or --ref BRANCH for its newest")
	default:
		if commit, err = s.git.Tip(ctx, remote, ref); err != nil {
			err = remoteProblem("submitting", remote, err)
		}
	}
	return remote, ref, commit, err
}

// remote reads a repository's address, and keeps to what is allowed here.
func (s *Service) remote(address string) (git.Remote, error) {
	remote, err := git.ParseRemote(address)
	if err != nil {
		return remote, invalid("submitting", "", err.Error(), "")
	}
	if remote.IsFile() && s.cfg.RefuseFiles {
		return remote, refused("submitting", remote.String(), "repositories on the gateway's own disk are not taken here", "push to the gateway instead")
	}
	return remote, nil
}

// refOf is the full name of a branch.
func refOf(text string) (string, error) {
	if text == "" || strings.HasPrefix(text, git.Heads) {
		return text, nil
	}
	if strings.HasPrefix(text, "refs/") || strings.HasPrefix(text, "-") || strings.ContainsAny(text, " ~^:?*[\\\n") {
		return "", invalid("submitting", fmt.Sprintf("%.80q", text), "it is not a branch", "name it as main or refs/heads/main")
	}
	return git.Heads + text, nil
}

// elsewhere fetches a commit and says what it changes. wanted, where not empty, is the app that it must be of.
func (s *Service) elsewhere(ctx context.Context, remote git.Remote, ref string, commit git.Commit, wanted string) (change, error) {
	repository, definition, err := s.fetched(ctx, remote, ref, commit, wanted)
	if err != nil {
		return change{}, err
	}
	if ref == "" {
		ref = git.Heads + definition.Branch
	}
	app := s.fold().App(definition.App)
	if app != nil && !app.Created.IsZero() && app.Repository != remote.String() {
		return change{}, conflict("submitting", fmt.Sprintf("%s at %s", remote, commit.Short()), fmt.Sprintf("app %s belongs to %s", app.Name, belongs(app)),
			"push or submit from there, or give this one another name in "+pipeline.FileName)
	}
	what := change{app: definition.App, repository: remote.String(), ref: ref, now: commit, definition: definition}
	if app != nil {
		if latest := app.Latest(what.repository, ref); latest != nil {
			what.old = git.Commit(latest.Start.SHA)
		}
	}
	return what, s.describe(ctx, repository, &what)
}

// fetched is a commit of a repository elsewhere, and its towpath.yaml.
func (s *Service) fetched(ctx context.Context, remote git.Remote, ref string, commit git.Commit, wanted string) (git.Repository, pipeline.Definition, error) {
	refuse := func(why, do string) (git.Repository, pipeline.Definition, error) {
		return git.Repository{}, pipeline.Definition{}, refused("submitting", fmt.Sprintf("%s at %s", remote, commit.Short()), why, do)
	}
	repository, err := s.git.Fetch(ctx, remote, ref, commit)
	if err != nil {
		return git.Repository{}, pipeline.Definition{}, remoteProblem("submitting commit "+string(commit), remote, err)
	}
	files, err := repository.Files(ctx, []git.Commit{commit}, pipeline.FileName, pipeline.MaxSize)
	if err != nil {
		return git.Repository{}, pipeline.Definition{}, err
	}
	f := found{update: git.Update{New: commit, Ref: ref}}
	f.read(files[0])
	switch {
	case f.missing:
		return refuse(pipeline.FileName+" is missing at its root", "`towpath init` writes one; commit it")
	case f.fault != nil:
		return refuse(f.fault.Error(), "mend it and commit")
	case wanted != "" && wanted != string(f.definition.App):
		return refuse(fmt.Sprintf("its %s is of app %s, not %s", pipeline.FileName, f.definition.App, wanted), "")
	}
	return repository, f.definition, nil
}

// describe adds who wrote the commits. The commit before may not be at hand: then it is the newest one alone.
func (s *Service) describe(ctx context.Context, repository git.Repository, what *change) error {
	base := what.old
	if there, err := repository.Contains(ctx, base); base.None() || err != nil || !there {
		base = ""
	}
	commits, err := repository.Change(ctx, base, what.now)
	if err != nil {
		return err
	}
	what.authors, err = s.authors(ctx, commits.Authors)
	return err
}

func belongs(app *fold.App) string {
	if app.Repository == "" {
		return "the repository that this gateway hosts"
	}
	return app.Repository
}

// submittedHosted is a commit of a repository that this gateway hosts.
func (s *Service) submittedHosted(ctx context.Context, body view.Submission) (change, error) {
	app := s.fold().App(events.Slug(body.App))
	if body.App == "" || app == nil || app.Repository != "" || !s.git.Exists(app.Name) {
		return change{}, invalid("submitting", body.App, "no repository is named", "add --repo URL, or --image REF@sha256:… for an image")
	}
	commit, err := git.ParseCommit(body.Commit)
	if err != nil {
		return change{}, invalid("submitting commit", fmt.Sprintf("%.80q", body.Commit), err.Error(), "git rev-parse HEAD gives the full id")
	}
	repository := s.git.Repository(app.Name)
	founds, err := readDefinitions(ctx, repository, []git.Update{{New: commit, Ref: git.Heads + "any"}})
	if err != nil {
		return change{}, err
	}
	f := founds[0]
	switch {
	case f.missing:
		return change{}, notFound("submitting commit", string(commit), "it was not pushed, or has no "+pipeline.FileName, "push it")
	case f.fault != nil:
		return change{}, refused("submitting commit", string(commit), f.fault.Error(), "mend it and push")
	case f.definition.App != app.Name:
		return change{}, refused("submitting commit", string(commit), fmt.Sprintf("its %s is of app %s", pipeline.FileName, f.definition.App), "")
	}
	what := change{app: app.Name, ref: git.Heads + f.definition.Branch, now: commit, definition: f.definition}
	if latest := app.Latest(what.repository, what.ref); latest != nil {
		what.old = git.Commit(latest.Start.SHA)
	}
	if err := repository.Keep(ctx, commit); err != nil {
		return change{}, err
	}
	return what, s.describe(ctx, repository, &what)
}

// submittedImage is an image that another CI built. Its pipeline is the one that was sent along, or that of the app's
// newest run.
func (s *Service) submittedImage(ctx context.Context, body view.Submission) (change, error) {
	image, err := registry.ParseArtifact(body.Image)
	if err != nil {
		return change{}, invalid("submitting image", fmt.Sprintf("%.200q", body.Image), err.Error(), "name it by digest: docker inspect --format '{{index .RepoDigests 0}}' IMAGE")
	}
	what := change{app: events.Slug(body.App), image: &image}
	switch app := s.fold().App(what.app); {
	case body.Definition != "":
		what.definition, err = pipeline.Parse(pipeline.FileName, []byte(body.Definition))
		if err != nil {
			return change{}, refused("submitting image", image.String(), err.Error(), "mend "+pipeline.FileName)
		}
	case body.Repo != "":
		remote, ref, commit, err := s.named(ctx, body)
		if err != nil {
			return change{}, err
		}
		repository, definition, err := s.fetched(ctx, remote, ref, commit, body.App)
		if err != nil {
			return change{}, err
		}
		what.definition, what.now = definition, commit
		if err := s.describe(ctx, repository, &what); err != nil {
			return change{}, err
		}
	case app != nil && app.Newest() != nil:
		what.definition = app.Newest().Definition
	default:
		return change{}, refused("submitting image", image.String(), fmt.Sprintf("nothing says what app %q's pipeline is: it has no run yet", body.App),
			"add --repo URL --commit SHA of the repository with its "+pipeline.FileName)
	}
	if what.app == "" {
		what.app = what.definition.App
	}
	if what.definition.App != what.app {
		return change{}, refused("submitting image", image.String(), fmt.Sprintf("its %s is of app %s, not %s", pipeline.FileName, what.definition.App, what.app), "")
	}
	return what, nil
}

// remoteProblem puts git's complaints about a repository elsewhere into words.
func remoteProblem(what string, remote git.Remote, err error) error {
	var failed *git.Error
	switch {
	case errors.Is(err, context.Canceled):
		return err
	case errors.Is(err, git.ErrNotThere):
		return notFound(what, "of "+remote.String(), "it is not there", "push it there first, or look at its spelling")
	case errors.Is(err, context.DeadlineExceeded):
		return &problem{Status: http.StatusGatewayTimeout, What: what, On: "of " + remote.String(), Why: "the other side does not answer in time", Do: "try again", Code: codeFailed, cause: err}
	case errors.As(err, &failed):
		return &problem{
			Status: http.StatusBadGateway, What: what, On: "of " + remote.String(), Why: failed.Text,
			Do: "look at the address; a private repository needs credentials for the account that the gateway runs as", Code: codeFailed, cause: err,
		}
	}
	return err
}
