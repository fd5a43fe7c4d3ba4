package gateway

import (
	"context"
	"fmt"
	"path"
	"strings"
	"sync"
	"time"

	"towpath.dev/events"
	"towpath.dev/pkg/ledger/fold"
	"towpath.dev/pkg/pipeline"
	"towpath.dev/pkg/policy"
	"towpath.dev/pkg/settings"
	"towpath.dev/services/gateway/git"
	"towpath.dev/services/gateway/view"
)

// storesBound is how long an answer waits for the stores of settings of all environments.
const storesBound = 3 * time.Second

// blockers says, for each environment in order, what will keep a run from entering it: one line for each setting
// without a value or with one that cannot be deployed, for a store that cannot be looked into now, and for approvals.
func (s *Service) blockers(ctx context.Context, run *fold.Run) []string {
	lines := []string{}
	if app := s.fold().App(run.App); app != nil {
		if why, _, command := view.Held(app); why != "" {
			lines = append(lines, fmt.Sprintf("%s is held back (%s) → %s", run.App, why, command))
		}
	}
	for _, look := range s.lookAhead(ctx, run) {
		if look.err != nil {
			lines = append(lines, fmt.Sprintf("%s CANNOT BE CHECKED: %v", look.env, look.err))
		}
		for _, m := range look.missing {
			lines = append(lines, blockedLine(m))
		}
		if rule := s.approvalRule(run, look.env); rule.Count > 0 {
			lines = append(lines, approvalLine(run, look.env, rule))
		}
	}
	return lines
}

// ahead is what one environment's stores say of the settings that a run needs there.
type ahead struct {
	env     events.Slug
	missing []settings.MissingKey
	err     error
}

// lookAhead looks into the stores of all of a run's environments at once: what is missing in prod is known before dev
// has begun.
func (s *Service) lookAhead(ctx context.Context, run *fold.Run) []ahead {
	ctx, cancel := context.WithTimeout(ctx, storesBound)
	defer cancel()
	looks := make([]ahead, len(run.Definition.Environments))
	var looking sync.WaitGroup
	for i, env := range run.Definition.Environments {
		looking.Go(func() {
			missing, err := s.settings.Missing(ctx, env.Name, run.Definition)
			looks[i] = ahead{env.Name, missing, err}
		})
	}
	looking.Wait()
	return looks
}

// mostReads is how many undeclared variables a push is told of.
const mostReads = 5

// undeclaredReads says which environment variables a run's source reads that its pipeline does not declare.
func (s *Service) undeclaredReads(ctx context.Context, repository git.Repository, run *fold.Run) []string {
	commit, build := git.Commit(run.Start.SHA), run.Definition.Build
	if commit == "" || build.Dockerfile == "" {
		return nil
	}
	grepped, err := repository.Grep(ctx, commit, build.Context, pipeline.ReadPattern)
	if err != nil {
		s.logger.Warn("looking for undeclared settings in the source", "run", run.Name(), "err", err)
		return nil
	}
	dockerfile, err := repository.File(ctx, commit, path.Clean(build.Dockerfile), 1<<20)
	if err != nil {
		dockerfile = nil // the build says what is the matter with it
	}
	reads := pipeline.Undeclared(run.Definition, dockerfile, pipeline.ParseReads(grepped))
	var lines []string
	for _, r := range reads[:min(len(reads), mostReads)] {
		lines = append(lines, fmt.Sprintf("%s:%d reads %s, which %s does not declare → add it under config or secrets, if the app needs it", r.File, r.Line, r.Key, pipeline.FileName))
	}
	if more := len(reads) - mostReads; more > 0 {
		lines = append(lines, fmt.Sprintf("and %d more", more))
	}
	return lines
}

func blockedLine(m settings.MissingKey) string {
	return fmt.Sprintf("%s WILL BE BLOCKED: %s → %s", m.Env, m, m.Command)
}

func approvalLine(run *fold.Run, env events.Slug, rule policy.Approval) string {
	people := "approval"
	if rule.Count > 1 {
		people = "approvals"
	}
	who := ""
	if len(rule.Approvers) > 0 {
		who = " by " + strings.Join(rule.Approvers, " or ")
	}
	if !rule.AuthorMayApprove {
		who += ", not the author's"
	}
	return fmt.Sprintf("%s will wait for %d %s%s → towpath approve %s --env %s", env, rule.Count, people, who, run.Name(), env)
}
