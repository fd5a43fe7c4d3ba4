package gateway

import (
	"context"
	"errors"

	"towpath.dev/events"
	"towpath.dev/pkg/identity"
	"towpath.dev/pkg/ledger/fold"
	"towpath.dev/pkg/policy"
)

// scope is what a completed order is judged by, as the ledger and the settings have it now.
func (s *Service) scope(ctx context.Context, o order, app *fold.App, actor identity.Actor) (scope, error) {
	in := scope{
		app: app, held: s.fold().Held(), actor: actor.ID, roles: actor.Roles, newest: s.fold().CurrentPolicy().Digest,
		rule: s.approvalRule, ruleBy: s.ruleBy, maySkip: s.maySkip,
	}
	if o.Verb == events.VerbRollback && o.Env != "" {
		var err error
		in.then, err = s.then(ctx, o, app)
		return in, err
	}
	if o.Verb == events.VerbDismiss {
		in.messages = s.messages()
	}
	if o.Overrule {
		var err error
		in.takesBack, err = s.takesBack(ctx, app.Run(o.Run), o.Env)
		return in, err
	}
	if o.Verb != events.VerbReplay {
		return in, nil
	}
	if o.AllStuck {
		in.apps = s.fold().Apps()
		if app != nil {
			in.apps = []*fold.App{app}
		}
		return in, nil
	}
	run := app.Run(o.Run)
	if run == nil || run.Env(o.Env) == nil || o.Stage != fold.StagePromote && o.Stage != fold.StageVerify {
		return in, nil
	}
	present, missing, err := s.settings.Present(ctx, o.Env, run.Definition)
	if err != nil {
		return in, err
	}
	in.present = &present
	for _, m := range missing {
		in.missing = append(in.missing, string(m.Kind)+" "+m.Key)
	}
	return in, nil
}

// takesBack says which of those whose denials of a run stand in an environment may still approve there, and can take them
// back themselves.
func (s *Service) takesBack(ctx context.Context, run *fold.Run, env events.Slug) (map[string]bool, error) {
	if run == nil || run.Env(env) == nil {
		return nil, nil
	}
	may := map[string]bool{}
	for _, no := range denialsOf(run, run.Env(env)) {
		actor, err := s.actors.Get(ctx, no.Actor)
		if err != nil && !errors.Is(err, identity.ErrUnknownActor) {
			return nil, err
		}
		barred := identity.Authorize(actor, identity.Approve, identity.Object{App: run.App, Env: env, Run: run.N})
		may[no.Actor] = err == nil && barred == nil && s.approvalRule(run, env).Refuses(actor.Roles, false) == ""
	}
	return may, nil
}

// approvalRule is what the policy that the run is judged by asks for in an environment.
func (s *Service) approvalRule(run *fold.Run, env events.Slug) policy.Approval {
	return s.ruleBy(run.Policy, run, env)
}

// ruleBy is what a policy asks of a run in an environment; where the policy cannot be read, what the platform's file
// says.
func (s *Service) ruleBy(digest string, run *fold.Run, env events.Slug) policy.Approval {
	asked := 0
	if e, ok := run.Definition.Environment(env); ok {
		asked = e.Approvals
	}
	p, known := s.policyBy(digest)
	if !known {
		p = s.rt.Platform.Policy
	}
	return p.ApprovalRule(env, asked)
}

// policyBy is a published policy.
func (s *Service) policyBy(digest string) (policy.Policy, bool) {
	text := s.fold().Policy(digest)
	if text == nil {
		return policy.Policy{}, false
	}
	p, err := policy.ParseText(text)
	if err != nil {
		s.logger.Error("a policy cannot be read", "policy", digest, "err", err)
		return policy.Policy{}, false
	}
	return p, true
}
