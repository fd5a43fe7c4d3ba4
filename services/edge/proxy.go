package edge

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"strings"
	"syscall"
	"time"

	"towpath.dev/events"
	"towpath.dev/pkg/discovery"
)

// flight is one request on its way: where to, and which replica has it.
type flight struct {
	place   discovery.Place
	replica *replica
}

type flightKey struct{}

// proxy gives requests to replicas.
type proxy struct {
	table  *table
	domain string
	logger *slog.Logger
	base   http.RoundTripper
	back   *httputil.ReverseProxy
}

func newProxy(t *table, cfg Config, logger *slog.Logger) *proxy {
	p := &proxy{table: t, domain: cfg.Domain, logger: logger, base: &http.Transport{
		DialContext: dialer(cfg.DialTimeout),
		// An idle connection may be closed by the app just when a request is sent on it, and a request
		// with a body cannot be sent again.
		DisableKeepAlives:      true,
		DisableCompression:     true,
		MaxResponseHeaderBytes: 1 << 20,
	}}
	p.back = &httputil.ReverseProxy{
		Transport: p,
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.URL.Scheme, r.Out.URL.Host = "http", r.In.Host
			r.Out.Host = r.In.Host
			r.SetXForwarded()
		},
		ErrorHandler: p.failed,
		ErrorLog:     slog.NewLogLogger(logger.Handler(), slog.LevelInfo),
	}
	return p
}

// dialError marks an error before anything was sent.
type dialError struct{ error }

func (e dialError) Unwrap() error { return e.error }

func dialer(timeout time.Duration) func(context.Context, string, string) (net.Conn, error) {
	d := net.Dialer{Timeout: timeout, KeepAlive: 30 * time.Second}
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := d.DialContext(ctx, network, address)
		if err != nil {
			return nil, dialError{err}
		}
		return conn, nil
	}
}

// place reads a request's host name, <app>.<env>.<domain>[:port].
func (p *proxy) place(host string) (discovery.Place, bool) {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	host = strings.TrimSuffix(strings.ToLower(host), ".")
	rest, ours := strings.CutSuffix(host, "."+p.domain)
	app, env, two := strings.Cut(rest, ".")
	if !ours || !two {
		return discovery.Place{}, false
	}
	a, errA := events.ParseSlug(app)
	e, errE := events.ParseSlug(env)
	return discovery.Place{Env: e, App: a}, errA == nil && errE == nil
}

func (p *proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	place, ok := p.place(r.Host)
	if !ok {
		p.notFound(w, r, "this is the entry to the apps, and "+quoted(r.Host)+" names none")
		return
	}
	f := &flight{place: place}
	// Only now is the answer complete: the proxy returns after the last byte, of an upgraded connection
	// too, and it panics when the client has gone.
	defer func() {
		if f.replica != nil {
			p.table.release(f.replica)
		}
	}()
	if err := readSmallBody(r); err != nil {
		p.page(w, r, http.StatusBadRequest, fault{What: "reading the request's body", On: place.String(), Why: err.Error(), Do: "send it again"})
		return
	}
	// Otherwise the server closes the request's body as soon as the answer begins. The last look at a body,
	// for its end, may come after that: it would fail, and take the answer with it.
	http.NewResponseController(w).EnableFullDuplex()
	p.back.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), flightKey{}, f)))
}

// smallBody is the size of a request's body, in bytes, up to which it is read before a replica gets the request.
const smallBody = 64 << 10

// readSmallBody reads a small body whole. Where an app answers before it has read the body, the transport is still
// reading it when the answer is through, and so does the server, for the next request on that connection: it would
// close the connection, and a client that keeps its connections would lose a request that nobody has seen.
func readSmallBody(r *http.Request) error {
	if r.ContentLength <= 0 || r.ContentLength > smallBody {
		return nil
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return err
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	return nil
}

// RoundTrip sends a request to one replica after the other, until one could be connected to.
func (p *proxy) RoundTrip(request *http.Request) (*http.Response, error) {
	f := request.Context().Value(flightKey{}).(*flight)
	body := request.Body
	var tried []*replica
	for {
		replica, err := p.table.acquire(f.place, tried, time.Now())
		if err != nil {
			return nil, err
		}
		f.replica = replica
		attempt := request.Clone(request.Context())
		attempt.URL.Host = replica.Address
		if body != nil {
			// A transport closes the body when it could not connect; the next one still needs it.
			attempt.Body = io.NopCloser(body)
		}
		response, err := p.base.RoundTrip(attempt)
		var undialled dialError
		if !errors.As(err, &undialled) || request.Context().Err() != nil {
			return response, err
		}
		f.replica = nil
		p.table.release(replica)
		if ownShortage(err) {
			return nil, err
		}
		now := time.Now()
		if p.table.judge(replica, now, func(c condition) condition {
			return c.undialled(undialled.Error(), now, replica.stop != nil)
		}) < 0 {
			p.logger.Warn("replica cannot be connected to", "app", f.place.App, "env", f.place.Env, "instance", replica.ID, "err", undialled.Error())
		}
		tried = append(tried, replica)
	}
}

// ownShortage reports a failed dial that says nothing about the replica: this process or machine lacks
// something.
func ownShortage(err error) bool {
	for _, lack := range []error{syscall.EMFILE, syscall.ENFILE, syscall.EADDRNOTAVAIL, syscall.ENOBUFS} {
		if errors.Is(err, lack) {
			return true
		}
	}
	return false
}

// failed answers a request that no replica answered.
func (p *proxy) failed(w http.ResponseWriter, r *http.Request, err error) {
	f := r.Context().Value(flightKey{}).(*flight)
	var none *noReplicaError
	var tooLarge *http.MaxBytesError
	switch {
	case r.Context().Err() != nil: // the client has gone: nobody reads the answer
		w.WriteHeader(499)
	case errors.As(err, &none) && (none.known && !none.entry.Removed || none.loading):
		w.Header().Set("Retry-After", "1")
		p.page(w, r, http.StatusServiceUnavailable, fault{
			What: "no replica can take the request", On: f.place.String(), Why: none.Error(),
			Do: "try again in a moment; `towpath env show " + string(f.place.Env) + "` and `towpath runs --app " + string(f.place.App) + "` say what happens there",
		})
	case errors.As(err, &none):
		p.notFound(w, r, none.Error())
	case errors.As(err, &tooLarge):
		p.page(w, r, http.StatusRequestEntityTooLarge, fault{What: "the request is too large", On: f.place.String(), Why: err.Error(), Do: "send less"})
	case ownShortage(err):
		p.logger.Error("request was not sent", "app", f.place.App, "env", f.place.Env, "err", err)
		w.Header().Set("Retry-After", "1")
		p.page(w, r, http.StatusServiceUnavailable, fault{What: "the edge lacks a resource", On: f.place.String(), Why: err.Error(), Do: "try again in a moment; an operator raises the limit that is named"})
	default:
		on := f.place.String()
		if f.replica != nil {
			on = f.replica.ID
		}
		p.logger.Warn("replica did not answer", "app", f.place.App, "env", f.place.Env, "instance", on, "err", err)
		p.page(w, r, http.StatusBadGateway, fault{
			What: "the replica did not answer", On: on, Why: err.Error(),
			Do: "it was sent the request, so whether it took effect is unknown; `towpath logs` shows what the app says",
		})
	}
}
