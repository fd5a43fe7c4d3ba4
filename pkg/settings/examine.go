package settings

import (
	"context"
	"net"
	"net/url"

	"towpath.dev/events"
)

// Examiner is a Provider that can say how it is and what it lets the service do that asks.
type Examiner interface {
	// Examine looks at what the service needs of the provider in an environment. It changes nothing there, reads no
	// value, and takes as long as its requests may, or ctx.
	Examine(ctx context.Context, env events.Slug) Examination
}

// Examination is what a provider says of itself and of who asks.
type Examination struct {
	Says   []string // in a few words each: "Vault 1.21.0", "unsealed", "token valid until …"
	Doubts []Doubt  // what works, and should be otherwise
	Err    error    // why the service cannot do its part, mostly an *UnavailableError; nil: it can
}

// Doubt is something that a person should look at.
type Doubt struct{ Why, Do string }

// Say notes something about the provider.
func (e *Examination) Say(what string) { e.Says = append(e.Says, what) }

// Doubt notes something that should be otherwise.
func (e *Examination) Doubt(why, do string) { e.Doubts = append(e.Doubts, Doubt{why, do}) }

// Way notes how the way to a server's address is protected.
func (e *Examination) Way(address string) {
	u, err := url.Parse(address)
	switch {
	case err == nil && u.Scheme == "https":
		e.Say("TLS")
	case err == nil && isLoopback(u.Hostname()):
		e.Say("no TLS, on this machine's loopback interface")
	default:
		e.Doubt("what goes to and from it is not encrypted, tokens included", "let it speak TLS, and its address in platform.yaml begin with https://")
	}
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// Examine examines the provider of one kind of settings in an environment, where another than the embedded one keeps them.
func (s *Store) Examine(ctx context.Context, env events.Slug, kind Kind) (found Examination, external bool) {
	provider := s.provider(env, kind)
	if a, archived := provider.(*Archived); archived {
		provider = a.Provider
	}
	if e, can := provider.(Examiner); can {
		return e.Examine(ctx, env), true
	}
	return Examination{}, false
}
