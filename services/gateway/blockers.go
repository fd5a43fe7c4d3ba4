package gateway

import (
	"context"
	"fmt"
	"strings"

	"towpath.dev/pkg/ledger/fold"
	"towpath.dev/pkg/policy"
	"towpath.dev/pkg/settings"
	"towpath.dev/services/gateway/view"

	"towpath.dev/events"
)

// blockers says, for each environment in order, what will keep a run from entering it: one line for each setting
// without a value and for approvals. What cannot be found out is left out.
func (s *Service) blockers(ctx context.Context, run *fold.Run) []string {
	lines := []string{}
	if app := s.fold().App(run.App); app != nil {
		if why, _, command := view.Held(app); why != "" {
			lines = append(lines, fmt.Sprintf("%s is held back (%s) → %s", run.App, why, command))
		}
	}
	for _, env := range run.Definition.Environments {
		missing, err := s.settings.Missing(ctx, env.Name, run.Definition)
		if err != nil {
			s.logger.Warn("looking for missing settings", "app", run.App, "env", env.Name, "err", err)
		}
		for _, m := range missing {
			lines = append(lines, blockedLine(m))
		}
		if rule := s.approvalRule(run, env.Name); rule.Count > 0 {
			lines = append(lines, approvalLine(run, env.Name, rule))
		}
	}
	return lines
}

func blockedLine(m settings.MissingKey) string {
	return fmt.Sprintf("%s WILL BE BLOCKED: %s missing → %s", m.Env, m.Key, m.Command)
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
