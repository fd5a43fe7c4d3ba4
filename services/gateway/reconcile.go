package gateway

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"time"

	"towpath.dev/events"
	"towpath.dev/pkg/pipeline"
	"towpath.dev/pkg/source"
	"towpath.dev/pkg/worker/boundary"
	"towpath.dev/services/gateway/git"
)

// branchName is one branch of one hosted repository.
type branchName struct {
	app events.Slug
	ref string
}

// outcome is what became of one update of a branch.
type outcome struct {
	found
	started            // run is nil where the update starts none
	change  git.Change // of a run
}

// journal remembers how far git's log of each branch has been turned into runs, and which branches wait for it.
type journal struct {
	mu    sync.Mutex
	done  map[branchName]int
	again map[branchName]bool
}

func newJournal() *journal {
	return &journal{done: map[branchName]int{}, again: map[branchName]bool{}}
}

func (j *journal) at(b branchName) int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.done[b]
}

// settled records that a branch's log was handled up to n; with an error it has to be looked at again.
func (j *journal) settled(b branchName, n int, err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.done[b] = n
	if err != nil {
		j.again[b] = true
	} else {
		delete(j.again, b)
	}
}

// forget is called when a branch is deleted, and git's log with it.
func (j *journal) forget(b branchName) {
	j.mu.Lock()
	defer j.mu.Unlock()
	delete(j.done, b)
	delete(j.again, b)
}

func (j *journal) waiting() []branchName {
	j.mu.Lock()
	defer j.mu.Unlock()
	var list []branchName
	for b := range j.again {
		list = append(list, b)
	}
	return list
}

// reconcile makes sure that every update of a branch which git has taken in, and which starts a run, is recorded as
// one, in git's order. It is called after each push, at the start, and again while it fails. tip is where the branch is,
// if the caller knows.
func (s *Service) reconcile(ctx context.Context, b branchName, tip git.Commit) ([]outcome, error) {
	defer s.reconciling.lock(b.app)()
	boundary.Reached(events.Gateway, boundary.Received, b.app)
	repository := s.git.Repository(b.app)
	updates, from, err := s.unrecorded(ctx, repository, b, tip)
	if err != nil {
		s.journal.settled(b, from, err)
		return nil, err
	}
	founds, err := readDefinitions(ctx, repository, updates)
	if err != nil {
		s.journal.settled(b, from, err)
		return nil, err
	}
	var outcomes []outcome
	for i, f := range founds {
		o := outcome{found: f}
		if f.tracked(b.app) {
			if o, err = s.startPushed(ctx, repository, b.app, f); err != nil {
				s.journal.settled(b, from+i, err)
				return outcomes, err
			}
		}
		outcomes = append(outcomes, o)
	}
	if n := len(updates); n > 0 && updates[n-1].At.IsZero() {
		from-- // that one is in no log
	}
	s.journal.settled(b, from+len(updates), nil)
	boundary.Reached(events.Gateway, boundary.Ack, b.app)
	return outcomes, nil
}

// unrecorded returns the updates of a branch that come after the last one which is known to be handled, and how many
// are before them.
func (s *Service) unrecorded(ctx context.Context, r git.Repository, b branchName, tip git.Commit) (updates []git.Update, from int, err error) {
	log, err := r.Updates(b.ref)
	if err != nil {
		return nil, 0, err
	}
	if len(log) == 0 || log[len(log)-1].New != tip {
		heads, err := r.Heads(ctx)
		if err != nil {
			return nil, 0, err
		}
		tip = heads[b.ref] // a later push may have moved it
	}
	app := s.fold().App(b.app)
	if from = s.journal.at(b); from > len(log) {
		from = 0 // the branch was deleted and made again
	}
	if from == 0 && app != nil {
		recorded := app.Started()
		for i, update := range slices.Backward(log) {
			if recorded[updateID(b.app, update)] {
				from = i + 1
				break
			}
		}
	}
	updates = slices.Clone(log[from:])
	if tip.None() || len(log) > 0 && log[len(log)-1].New == tip {
		return updates, from, nil
	}
	// A power cut may have cost the log its end, never the branch itself.
	lost := git.Update{Ref: b.ref, New: tip}
	if app != nil {
		if latest := app.Latest("", b.ref); latest != nil {
			lost.Old = git.Commit(latest.Start.SHA)
		}
	}
	if lost.Old != tip {
		updates = append(updates, lost)
	}
	return updates, from, nil
}

// updateID is the id of the event that an update of a branch becomes: the same line of git's log always has the same.
func updateID(app events.Slug, u git.Update) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "towpath push\n%s\n%s\n%s\n%s\n%s\n%d", app, u.Ref, u.Push, u.Old, u.New, u.At.Unix()))
	sum[6] = sum[6]&0x0f | 0x80 // version 8, RFC 9562: made by its own rule
	sum[8] = sum[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", sum[0:4], sum[4:6], sum[6:8], sum[8:10], sum[10:16])
}

// readDefinitions reads what the updates bring, with one git process.
func readDefinitions(ctx context.Context, r git.Repository, updates []git.Update) ([]found, error) {
	founds := make([]found, len(updates))
	var commits []git.Commit
	for _, u := range updates {
		if u.Branch() != "" && !u.New.None() {
			commits = append(commits, u.New)
		}
	}
	var files []git.File
	if len(commits) > 0 {
		var err error
		if files, err = r.Files(ctx, commits, pipeline.FileName, pipeline.MaxSize); err != nil {
			return nil, fmt.Errorf("reading %s: %w", pipeline.FileName, err)
		}
	}
	for i, u := range updates {
		founds[i].update = u
		if u.Branch() == "" || u.New.None() {
			continue
		}
		founds[i].read(files[0])
		files = files[1:]
	}
	return founds, nil
}

// read takes the definition from towpath.yaml as git gave it.
func (f *found) read(file git.File) {
	switch {
	case errors.Is(file.Err, fs.ErrNotExist):
		f.missing = true
	case errors.Is(file.Err, git.ErrTooLarge):
		f.fault = fmt.Errorf("%s:1: the file is too large: allowed are %d bytes", pipeline.FileName, pipeline.MaxSize)
	case file.Err != nil:
		f.fault = fmt.Errorf("%s:1: %w", pipeline.FileName, file.Err)
	default:
		f.definition, f.fault = pipeline.Parse(pipeline.FileName, file.Data)
	}
}

// startPushed records the run of an update to a branch that git has taken in.
func (s *Service) startPushed(ctx context.Context, r git.Repository, app events.Slug, f found) (outcome, error) {
	o := outcome{found: f}
	var err error
	if o.change, err = r.Change(ctx, f.update.Old, f.update.New); err != nil {
		return o, err
	}
	authors, err := s.authors(ctx, o.change.Authors)
	if err != nil {
		return o, err
	}
	if err := r.Keep(ctx, f.update.New); err != nil {
		return o, err
	}
	boundary.Reached(events.Gateway, boundary.Effect, app)
	actor := f.update.By
	if _, err := events.ParseSlug(actor); err != nil {
		actor = string(events.Gateway)
	}
	o.started, err = s.start(ctx, change{
		app: app, ref: f.update.Ref, old: f.update.Old, now: f.update.New,
		definition: f.definition, actor: actor, authors: authors, id: updateID(app, f.update),
	})
	if err != nil || !o.fresh {
		return o, err
	}
	if head, err := r.Head(); err == nil && head != f.update.Ref {
		return o, r.SetHead(ctx, f.update.Ref)
	}
	return o, nil
}

// authors turns addresses in commits into opaque ids.
func (s *Service) authors(ctx context.Context, people []git.Author) ([]string, error) {
	var ids []string
	for _, person := range people {
		actor, err := s.actors.ByEmail(ctx, person.Email, person.Name)
		if err != nil {
			return nil, fmt.Errorf("looking up who wrote the change: %w", err)
		}
		if !slices.Contains(ids, actor.ID) {
			ids = append(ids, actor.ID)
		}
	}
	return ids, nil
}

// hostedURL is where the repository of an app that this gateway hosts is reached.
func (s *Service) hostedURL(app events.Slug) string { return source.URL(s.url, app) }

// reconcileAll looks at every branch of every hosted repository: what a crash between git and the ledger left behind.
// What cannot be recorded now is tried again by keepReconciling.
func (s *Service) reconcileAll(ctx context.Context) error {
	if err := s.git.RemoveEmpty(); err != nil {
		return err
	}
	apps, err := s.git.Apps()
	if err != nil {
		return err
	}
	for _, app := range apps {
		heads, err := s.git.Repository(app).Heads(ctx)
		if err != nil {
			return err
		}
		for ref, tip := range heads {
			outcomes, err := s.reconcile(ctx, branchName{app, ref}, tip)
			s.logRecovered(outcomes)
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			if err != nil {
				s.logger.Error("a push is not recorded yet; it is tried again", "app", app, "branch", strings.TrimPrefix(ref, git.Heads), "err", err)
			}
		}
	}
	return nil
}

func (s *Service) logRecovered(outcomes []outcome) {
	for _, o := range outcomes {
		if o.run != nil && o.fresh {
			s.logger.Info("a push that was taken in before is recorded now", "run", o.run.Name(), "commit", o.update.New.Short())
		}
	}
}

// retryPause is how long a push that could not be recorded waits for the next try.
const retryPause = 2 * time.Second

// keepReconciling tries again what could not be recorded, until ctx ends.
func (s *Service) keepReconciling(ctx context.Context) {
	ticker := time.NewTicker(retryPause)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		for _, b := range s.journal.waiting() {
			outcomes, err := s.reconcile(ctx, b, "")
			s.logRecovered(outcomes)
			if err != nil && ctx.Err() == nil {
				s.logger.Warn("a push is not recorded yet", "app", b.app, "branch", strings.TrimPrefix(b.ref, git.Heads), "err", err)
			}
		}
	}
}
