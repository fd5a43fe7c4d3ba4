package settings

import (
	"context"

	"towpath.dev/events"
	"towpath.dev/pkg/policy"
)

// Holder is a version of an app that may read its own settings itself: those of one slot of an environment.
type Holder struct {
	Install string // the installation's id, so that none takes away what another gave
	Env     events.Slug
	App     events.Slug
	Slot    int
	Keys    []string // that the app declares, of the access's kind
}

// Grant is what a Holder's containers are given so that they find their settings of one kind.
type Grant struct {
	Env   map[string]string // variables
	Files map[string]Secret // files beside the app's secrets, by name
}

// Access lets apps read their settings of one kind where they are kept, instead of being handed them: each its own, in
// one environment, and no more. It is safe for concurrent use and bounds each wait; errors are those of a Provider.
type Access interface {
	// Grant lets a holder read its settings. It may be called any number of times for one holder; what was given
	// before stays good, or is replaced by what is returned.
	Grant(ctx context.Context, h Holder) (Grant, error)
	// Revoke takes away what was granted to slots of an app in an environment, but those that keep reports true for.
	// What is gone already is fine.
	Revoke(ctx context.Context, install string, env, app events.Slug, keep func(slot int) bool) error
}

// UseAccess lets apps that ask for it find an environment's settings of one kind themselves. Environments for which it
// is not called are as policy.DefaultEnvironment is. It is called before the store is used.
func (s *Store) UseAccess(env events.Slug, kind Kind, a Access) { s.access[kind][env] = a }

// Access returns how apps find an environment's settings of one kind themselves; nil: they cannot, because the
// embedded provider keeps them.
func (s *Store) Access(env events.Slug, kind Kind) Access {
	a, named := s.access[kind][env]
	if !named {
		return s.access[kind][policy.DefaultEnvironment]
	}
	return a
}

// FilesFolder is where an app's containers find its secrets, and the Files of a Grant.
const FilesFolder = "/run/secrets"
