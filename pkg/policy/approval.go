package policy

import (
	"fmt"
	"slices"
	"strings"

	"towpath.dev/events"
)

// Approval is what a promotion into an environment needs of people.
type Approval struct {
	Count            int      `json:"count"`               // different people; 0: none is asked
	AuthorMayApprove bool     `json:"authorMayApprove"`    // whoever wrote or pushed the change counts too
	Approvers        []string `json:"approvers,omitempty"` // roles, sorted, of which an approver has one; empty: any who may approve
}

// ApprovalRule returns the rule of an environment, for a pipeline that asks for asked approvals there.
// The pipeline can raise the count and nothing else.
func (p Policy) ApprovalRule(env events.Slug, asked int) Approval {
	rule, ok := p.Approvals[env]
	if !ok {
		rule = p.Approvals[DefaultEnvironment]
	}
	rule.Count = max(rule.Count, asked)
	rule.Approvers = slices.Clone(rule.Approvers)
	return rule
}

// Equal reports whether two rules let the same approvals count.
func (a Approval) Equal(b Approval) bool {
	return a.Count == b.Count && a.AuthorMayApprove == b.AuthorMayApprove && slices.Equal(a.Approvers, b.Approvers)
}

// Counted returns who let an artifact in under a policy, each once, in the order in which they did: of the approvals that
// were recorded for an environment since what stands before it changed last. It is what a gate counts, and what a proof
// counts after it.
func Counted(given []events.Promotion, artifactID, policy string) []string {
	var who []string
	for _, p := range given {
		if p.ArtifactID == artifactID && p.Policy == policy && !slices.Contains(who, p.Responder) {
			who = append(who, p.Responder)
		}
	}
	return who
}

// Refuses says why an approval by somebody with these roles does not count; empty: it counts.
func (a Approval) Refuses(roles []string, author bool) string {
	if author && !a.AuthorMayApprove {
		return "you wrote part of this change; somebody else has to approve it"
	}
	if len(a.Approvers) == 0 {
		return ""
	}
	for _, role := range roles {
		if slices.Contains(a.Approvers, role) {
			return ""
		}
	}
	return fmt.Sprintf("an approver here is %s; you have the roles: %s",
		strings.Join(a.Approvers, " or "), strings.Join(append(slices.Clone(roles), noneOf(roles)...), ", "))
}

func noneOf(roles []string) []string {
	if len(roles) == 0 {
		return []string{"none"}
	}
	return nil
}
