package settings

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

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

// Grant is what a Holder's containers, or one of them, are given so that they find their settings of one kind.
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
	// Revoke takes away what was granted to slots of an app in an environment, and issued to their containers, but
	// those that keep reports true for. What is gone already is fine.
	Revoke(ctx context.Context, install string, env, app events.Slug, keep func(slot int) bool) error
}

// Container is one of a Holder's containers, as an Issuer knows it.
type Container struct {
	Name   string // within the slot, a slug: the number of a replica, or what else it is for
	Folder string // where it finds the files that are its own
	// Started tells when it was started last. Nil: it is about to be made.
	Started func(context.Context) (time.Time, error)
	// Lost says that files which it was given are gone.
	Lost bool
}

// Issuer gives each container files of its own, which each of its starts can use once. It is safe for concurrent use,
// for one container by one caller at a time.
type Issuer interface {
	// Issue returns what a container is to have for its next start, and no files where what it has is good for that.
	// What containers of that name had is taken away where this one is about to be made, and what earlier starts of it
	// used once a later one has begun.
	Issue(ctx context.Context, h Holder, c Container) (Grant, error)
	// Issued says that the container has what Issue returned last.
	Issued(ctx context.Context, h Holder, c Container) error
}

// Guard finds out that somebody else has used what was handed over for a service or a container alone. It is safe for
// concurrent use and bounds each wait.
type Guard interface {
	// Alarms returns those that stand. whole is false where others may stand that it cannot know of now.
	Alarms(ctx context.Context) (standing []events.Alarm, whole bool)
}

// Alarms returns the alarms that stand at all stores of settings, and the environments of which it cannot be known
// now whether there are others.
func (s *Store) Alarms(ctx context.Context) (standing []events.Alarm, unsure []events.Slug) {
	ask := func(env events.Slug, of any) {
		g, guards := of.(Guard)
		if !guards {
			return
		}
		found, whole := g.Alarms(ctx)
		for _, one := range found {
			if !slices.Contains(standing, one) {
				standing = append(standing, one)
			}
		}
		if !whole {
			unsure = append(unsure, env)
		}
	}
	for _, kind := range []Kind{Config, Secrets} {
		for env, p := range s.external[kind] {
			ask(env, p)
		}
		for env, a := range s.access[kind] {
			ask(env, a)
		}
	}
	return standing, unsure
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

// FilesFolder is where an app's containers find its secrets, and the Files of a Grant. OwnFolder has a folder for each
// container of a version, with what was issued to it alone.
const (
	FilesFolder = "/run/secrets"
	OwnFolder   = FilesFolder + "/own"
)

// HostGateway is the name under which containers reach the machine of their engine.
const HostGateway = "host.docker.internal"

// WantsCertificate reports whether a server ended a TLS connection because of the certificate that it was shown, or was not.
func WantsCertificate(err error) bool {
	var alert tls.AlertError
	if errors.As(err, &alert) {
		return slices.Contains([]tls.AlertError{42, 43, 44, 45, 46, 48, 116}, alert) // RFC 8446, 6.2: certificates, unknown_ca
	}
	return err != nil && strings.Contains(err.Error(), "remote error: tls: ") && strings.Contains(err.Error(), "certificate")
}

// Telling returns a TLS connection that says what the server ended it with also where that is noticed while writing: with
// TLS 1.3 a server judges the client's certificate after the client's side of the handshake is done.
func Telling(conn net.Conn) net.Conn { return &telling{Conn: conn} }

type telling struct {
	net.Conn
	mu   sync.Mutex
	said error
}

func (t *telling) Read(p []byte) (int, error) {
	n, err := t.Conn.Read(p)
	if WantsCertificate(err) {
		t.mu.Lock()
		t.said = err
		t.mu.Unlock()
	}
	return n, err
}

func (t *telling) Write(p []byte) (int, error) {
	n, err := t.Conn.Write(p)
	t.mu.Lock()
	defer t.mu.Unlock()
	if err != nil && t.said != nil {
		err = t.said
	}
	return n, err
}

// Public is an address without what must not be shown.
func Public(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return "an address that is none"
	}
	u.User, u.RawQuery, u.Fragment = nil, "", ""
	return u.String()
}

// FromContainers is where containers reach a server. One on the loopback of their engine's machine they reach at the
// machine's own name.
func FromContainers(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return address
	}
	if ip := net.ParseIP(u.Hostname()); u.Hostname() == "localhost" || ip != nil && ip.IsLoopback() {
		u.Host = HostGateway + strings.TrimPrefix(u.Host, strings.TrimSuffix(u.Host, ":"+u.Port()))
	}
	return u.String()
}
