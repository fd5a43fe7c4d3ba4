// Package consul keeps configuration in Consul's KV, as a settings.Provider, and lets apps read their own keys there.
//
// It guarantees that a value which is read is the present one (consistent reads), that a write never loses another's
// (compare and swap), and that a wait is bounded. It keeps no old versions: wrap the provider with settings.NewArchived.
// Trees that are there already are taken as they are: below the folder of an app it passes over keys that are nested
// deeper or have names that no setting has.
package consul

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/hashicorp/consul/api"

	"towpath.dev/events"
	"towpath.dev/pkg/pause"
	"towpath.dev/pkg/policy"
	"towpath.dev/pkg/settings"
)

// Client is one environment's Consul, as one service asks it. It is safe for concurrent use.
type Client struct {
	api     *api.Client
	http    *http.Client // beneath api
	cfg     policy.Consul
	service string
	store   string // what errors call it
	token   string // file; empty: anonymous
}

// How long is waited for an answer.
const (
	answerBound = 5 * time.Second        // for one request
	leaderBound = time.Second            // to say whether there is a leader
	retryFirst  = 100 * time.Millisecond // pause before a request is sent again, then twice as long each time, while
	retryBound  = time.Second            // this has not passed since the first
)

// NewClient returns the client of a service. Token and certificates are read from their files for each request and connection, so
// that they can be replaced in place. It does no IO.
func NewClient(cfg policy.Consul, env events.Slug, service string) (*Client, error) {
	for _, file := range []*string{&cfg.Cert, &cfg.Key} {
		*file = strings.ReplaceAll(*file, policy.ServicePlaceholder, service)
	}
	c := &Client{
		cfg: cfg, service: service, store: fmt.Sprintf("Consul of %s (%s)", env, cfg.Address),
		token: strings.ReplaceAll(cfg.TokenFile, policy.ServicePlaceholder, service),
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.Proxy = nil
	if cfg.CA != "" || cfg.Cert != "" {
		transport.DialTLSContext = c.dialTLS
	}
	var err error
	// The settings of api.Config that are empty come from this process's environment, so the token is set by c.
	c.http = &http.Client{Transport: &authorized{c.token, transport}}
	c.api, err = api.NewClient(&api.Config{Address: cfg.Address, HttpClient: c.http})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", c.store, err)
	}
	return c, nil
}

// authorized sends each request with the token that the file holds at that time.
type authorized struct {
	file string
	next http.RoundTripper
}

// RoundTrip implements http.RoundTripper.
func (a *authorized) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Del("X-Consul-Token")
	if a.file != "" {
		token, err := os.ReadFile(a.file)
		if err != nil {
			return nil, &fileError{err}
		}
		r.Header.Set("X-Consul-Token", strings.TrimSpace(string(token)))
	}
	return a.next.RoundTrip(r)
}

// fileError says that a file of this machine cannot be used.
type fileError struct{ err error }

func (e *fileError) Error() string { return e.err.Error() }

func (e *fileError) Unwrap() error { return e.err }

func (c *Client) dialTLS(ctx context.Context, network, address string) (net.Conn, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if c.cfg.CA != "" {
		text, err := os.ReadFile(c.cfg.CA)
		if err != nil {
			return nil, &fileError{err}
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(text) {
			return nil, &fileError{fmt.Errorf("%s holds no PEM certificate", c.cfg.CA)}
		}
	}
	if c.cfg.Cert != "" {
		own, err := tls.LoadX509KeyPair(c.cfg.Cert, c.cfg.Key)
		if err != nil {
			return nil, &fileError{fmt.Errorf("cert %s and key %s: %w", c.cfg.Cert, c.cfg.Key, err)}
		}
		config.Certificates = []tls.Certificate{own}
	}
	dialer := tls.Dialer{Config: config}
	conn, err := dialer.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return settings.Telling(conn), nil
}

// Do sends a request, once, and says as a settings.UnavailableError why it was not answered.
func (c *Client) Do(ctx context.Context, what string, request func(context.Context, *api.Client) error) error {
	return c.once(ctx, what, func(ctx context.Context) error { return request(ctx, c.api) })
}

// ask sends a request that may be sent again, until it is answered or not worth it any more.
func (c *Client) ask(ctx context.Context, what string, request func(ctx context.Context) error) error {
	for wait, begun := retryFirst, time.Now(); ; wait *= 2 {
		err := c.once(ctx, what, request)
		var away *settings.UnavailableError
		if err == nil || !errors.As(err, &away) || time.Since(begun) > retryBound || !passing(err) {
			return err
		}
		if pause.For(ctx, wait) != nil {
			return err
		}
	}
}

// once sends a request and says in Towpath's words why it failed.
func (c *Client) once(ctx context.Context, what string, request func(ctx context.Context) error) error {
	return c.within(ctx, answerBound, what, request)
}

func (c *Client) within(ctx context.Context, bound time.Duration, what string, request func(ctx context.Context) error) error {
	if deadline, ok := ctx.Deadline(); ok {
		bound = min(bound, time.Until(deadline).Round(time.Second/10))
	}
	bounded, cancel := context.WithTimeout(ctx, bound)
	defer cancel()
	err := request(bounded)
	switch {
	case err == nil, errors.Is(err, settings.ErrChanged):
		return err
	case errors.Is(ctx.Err(), context.Canceled):
		return fmt.Errorf("%s: %s: %w", c.store, what, context.Cause(ctx))
	case errors.Is(err, context.DeadlineExceeded) && c.leaderless(ctx):
		return c.away(what, "it has no leader", doLeader, err)
	case errors.Is(err, context.DeadlineExceeded):
		return c.away(what, fmt.Sprintf("it did not answer within %s", bound), doStart, err)
	}
	return c.explain(what, err)
}

// leaderless reports whether Consul answers, and says that it has no leader: it lets other requests wait for one, longer
// than they may.
func (c *Client) leaderless(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, leaderBound)
	defer cancel()
	leader, err := c.api.Status().LeaderWithQueryOptions((&api.QueryOptions{}).WithContext(ctx))
	return err == nil && leader == "" || err != nil && strings.Contains(err.Error(), "No cluster leader")
}

// What a person does about it.
const (
	doStart  = "check that it runs and is reached from here; Towpath asks again by itself"
	doLeader = "bring enough of its servers up again for a majority; Towpath asks again by itself"
)

func (c *Client) away(what, why, do string, err error) error {
	return &settings.UnavailableError{Store: c.store, What: what, Why: why, Do: do, Err: err}
}

// explain tells what a person can do about an error of the API.
func (c *Client) explain(what string, err error) error {
	var (
		status api.StatusError
		file   *fileError
		dial   *net.OpError
	)
	switch {
	case errors.As(err, &status):
		return c.explainStatus(what, status)
	case errors.As(err, &file):
		return c.away(what, file.Error(), "make it a file that this service may read; it is read for each request", err)
	case untrusted(err):
		return c.away(what, "its certificate is not trusted: "+cause(err), "name a file with who signed it as ca of that Consul in platform.yaml", err)
	case settings.WantsCertificate(err):
		return c.away(what, "it does not take what this service shows of itself: "+cause(err), "name a client certificate that it takes as cert and key of that Consul in platform.yaml", err)
	case errors.As(err, &dial):
		return c.away(what, "it is not reached: "+dial.Error(), doStart, err)
	}
	return c.away(what, "the connection failed: "+cause(err), doStart, err)
}

func (c *Client) explainStatus(what string, s api.StatusError) error {
	who := "the anonymous token"
	if c.token != "" {
		who = "the token in " + c.token
	}
	body := s.Body
	if len(body) > 300 {
		body = strings.ToValidUTF8(body[:300], "") + "…"
	}
	switch {
	case s.Code == http.StatusForbidden && strings.Contains(body, "ACL not found"):
		return c.away(what, "it does not know "+who, "write a valid token there; it is read for each request", s)
	case s.Code == http.StatusForbidden:
		return c.away(what, "it refuses "+who+": "+body, "give it that right, or name another tokenFile in platform.yaml", s)
	case s.Code == http.StatusRequestEntityTooLarge:
		return fmt.Errorf("%s: %s: %w: it is too large for Consul: %s", c.store, what, settings.ErrInvalid, body)
	case s.Code == http.StatusBadRequest && strings.Contains(body, "HTTP request to an HTTPS server"):
		return c.away(what, "it speaks TLS", "let its address in platform.yaml begin with https://", s)
	case strings.Contains(body, "No cluster leader"), strings.Contains(body, "No known Consul servers"):
		return c.away(what, "it has no leader: "+body, doLeader, s)
	case s.Code == http.StatusTooManyRequests, s.Code >= 500:
		return c.away(what, fmt.Sprintf("it answers %d: %s", s.Code, body), doStart, s)
	}
	return fmt.Errorf("%s: %s: it answers: %w", c.store, what, s)
}

// passing reports whether an error may be over in a moment: a server that starts or a leader that is elected.
func passing(err error) bool {
	var (
		status api.StatusError
		dial   *net.OpError
	)
	if errors.As(err, &status) {
		return status.Code >= 500 || status.Code == http.StatusTooManyRequests
	}
	return errors.As(err, &dial)
}

// untrusted reports whether a certificate was refused.
func untrusted(err error) bool {
	var (
		verification *tls.CertificateVerificationError
		authority    x509.UnknownAuthorityError
		name         x509.HostnameError
	)
	return errors.As(err, &verification) || errors.As(err, &authority) || errors.As(err, &name)
}

// cause is the error without the URL that was asked.
func cause(err error) string {
	for {
		inner := errors.Unwrap(err)
		if inner == nil {
			return err.Error()
		}
		err = inner
	}
}
