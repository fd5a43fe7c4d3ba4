package promote

import (
	"context"
	"fmt"
	"sync"
	"time"

	"towpath.dev/events"
	"towpath.dev/pkg/ledger/fold"
	"towpath.dev/pkg/pipeline"
	"towpath.dev/pkg/policy"
	"towpath.dev/pkg/settings"
)

// rules looks up gates: the policy in the ledger, the settings in their store.
type rules struct {
	fold     *fold.Fold
	settings *settings.Store

	mu     sync.Mutex
	parsed map[string]policy.Policy // by digest
	silent map[stores]silence
}

// stores are those of an environment that a question needs.
type stores struct {
	env             events.Slug
	config, secrets bool
}

// silence is that a store of settings does not answer.
type silence struct {
	err   error
	until time.Time
}

// silenceHolds is how long a store that did not answer is not asked again, so that what does not need it goes on without
// waiting for it at every step. It is shorter than storePause.
const silenceHolds = 3 * time.Second

func newRules(f *fold.Fold, store *settings.Store) *rules {
	return &rules{fold: f, settings: store, parsed: map[string]policy.Policy{}, silent: map[stores]silence{}}
}

// ask asks stores, unless they were silent a moment ago.
func (r *rules) ask(of stores, question func() error) error {
	r.mu.Lock()
	last, ok := r.silent[of]
	r.mu.Unlock()
	if ok && time.Now().Before(last.until) {
		return last.err
	}
	err := question()
	r.mu.Lock()
	defer r.mu.Unlock()
	if unavailable(err) {
		r.silent[of] = silence{err, time.Now().Add(silenceHolds)}
	} else {
		delete(r.silent, of)
	}
	return err
}

// Gate implements Gates.
func (r *rules) Gate(ctx context.Context, at Place, run *fold.Run) (Gate, error) {
	p, err := r.policy(run.Policy)
	if err != nil {
		return Gate{Fault: err.Error()}, nil
	}
	d := run.Definition
	env, _ := d.Environment(at.Env)
	g := Gate{Approval: p.ApprovalRule(at.Env, env.Approvals), Since: r.since(run, env)}
	err = r.ask(stores{at.Env, len(d.Config) > 0, len(d.Secrets) > 0}, func() (err error) {
		g.Pins, g.Missing, err = r.settings.Pin(ctx, at.Env, d)
		return err
	})
	if err != nil {
		return g, fmt.Errorf("looking up the settings of %s in %s: %w", run.Name(), at.Env, err)
	}
	return g, nil
}

// since is the sequence up to which answers for the environment no longer count.
func (r *rules) since(run *fold.Run, env pipeline.Environment) uint64 {
	return run.GateSince(env.Name, func(from, to string) bool {
		before, errBefore := r.policy(from)
		now, errNow := r.policy(to)
		return errBefore == nil && errNow == nil &&
			before.ApprovalRule(env.Name, env.Approvals).Equal(now.ApprovalRule(env.Name, env.Approvals))
	})
}

// Present implements Gates. A secret that is not set any more keeps the version that it was pinned to.
func (r *rules) Present(ctx context.Context, at Place, pins events.Pins) (events.Pins, error) {
	present := events.Pins{
		Config: pins.Config, ConfigStore: pins.ConfigStore, Secrets: map[string]uint64{}, SecretStore: r.settings.Name(at.Env, settings.Secrets),
	}
	if len(pins.Secrets) == 0 {
		return present, nil
	}
	var items []settings.Item
	err := r.ask(stores{env: at.Env, secrets: true}, func() (err error) {
		items, err = r.settings.ListSecrets(ctx, at.Env, at.App)
		return err
	})
	if err != nil {
		return present, fmt.Errorf("looking up the secrets of %s in %s: %w", at.App, at.Env, err)
	}
	for key, version := range pins.Secrets {
		present.Secrets[key] = version
		for _, item := range items {
			if item.Key == key {
				present.Secrets[key] = item.Version
			}
		}
	}
	return present, nil
}

// policy returns the policy that a run pins, as the ledger has it.
func (r *rules) policy(digest string) (policy.Policy, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if p, ok := r.parsed[digest]; ok {
		return p, nil
	}
	text := r.fold.Policy(digest)
	if text == nil {
		return policy.Policy{}, fmt.Errorf("the policy %s that the run pins is not in the ledger", digest)
	}
	p, err := policy.ParseText(text)
	if err == nil && p.Digest() != digest {
		err = fmt.Errorf("its text has the digest %s", p.Digest())
	}
	if err != nil {
		return policy.Policy{}, fmt.Errorf("the policy %s that the run pins cannot be judged by: %w", digest, err)
	}
	r.parsed[digest] = p
	return p, nil
}
