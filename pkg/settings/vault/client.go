package vault

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/vault/api"

	"towpath.dev/pkg/settings"
)

// answerBound is how long one request may take.
const answerBound = 10 * time.Second

var (
	// errDenied says that the identity is not allowed to, or not known.
	errDenied = errors.New("permission denied")
	// errRefused says that Vault did not take what it was sent.
	errRefused = errors.New("refused")
)

// request is one request to Vault.
type request struct {
	method string
	path   string // below /v1/
	query  url.Values
	body   any
	token  settings.Secret // instead of the session's
	wrap   time.Duration   // the answer is wrapped for so long; 0: it is not
}

// answer is what Vault said: 200, 204, or 404 with or without data.
type answer struct {
	api.Secret
	status int
}

// client returns the connection, made at its first use because it reads the CA's file.
func (s *session) client() (*api.Client, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conn != nil {
		return s.conn, nil
	}
	transport := &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		DialContext:         (&net.Dialer{Timeout: answerBound / 2}).DialContext,
		TLSHandshakeTimeout: answerBound / 2,
		MaxIdleConnsPerHost: listers,
		IdleConnTimeout:     time.Minute,
		TLSClientConfig:     &tls.Config{MinVersion: tls.VersionTLS12},
	}
	if s.cfg.CA != "" {
		pem, err := os.ReadFile(s.cfg.CA)
		if err != nil {
			return nil, s.unavailable("connecting", fmt.Sprintf("its ca cannot be read: %v", err), "put the file there, or correct ca in platform.yaml", err)
		}
		transport.TLSClientConfig.RootCAs = x509.NewCertPool()
		if !transport.TLSClientConfig.RootCAs.AppendCertsFromPEM(pem) {
			err := fmt.Errorf("%s holds no PEM certificate", s.cfg.CA)
			return nil, s.unavailable("connecting", err.Error(), "put the certificate there of who signed the server's", err)
		}
	}
	if s.cfg.Cert != "" { // read for each connection, so that it can be replaced in place
		transport.TLSClientConfig.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			own, err := tls.LoadX509KeyPair(s.cfg.Cert, s.cfg.Key)
			if err != nil {
				return nil, &ownError{fmt.Errorf("cert %s and key %s: %w", s.cfg.Cert, s.cfg.Key, err)}
			}
			return &own, nil
		}
	}
	transport.DialTLSContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		dialer := tls.Dialer{NetDialer: &net.Dialer{Timeout: answerBound / 2}, Config: transport.TLSClientConfig}
		conn, err := dialer.DialContext(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return settings.Telling(conn), nil
	}
	conn, err := api.NewClient(&api.Config{
		Address: s.cfg.Address, Timeout: answerBound,
		HttpClient: &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }},
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.name, err)
	}
	// What the environment says is about the person who started us, not about us.
	conn.ClearToken()
	conn.ClearNamespace()
	if s.cfg.Namespace != "" {
		conn.SetNamespace(s.cfg.Namespace)
	}
	s.conn = conn
	return conn, nil
}

// ownError says that the service's own certificate cannot be read.
type ownError struct{ err error }

func (e *ownError) Error() string { return e.err.Error() }

func (e *ownError) Unwrap() error { return e.err }

// send asks Vault once.
func (s *session) send(ctx context.Context, r request) (answer, error) {
	conn, err := s.client()
	if err != nil {
		return answer{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, answerBound)
	defer cancel()
	req := conn.NewRequest(r.method, "/v1/"+r.path)
	if r.method == "LIST" {
		req.Method = http.MethodGet
		req.Params.Set("list", "true")
	}
	for name, values := range r.query {
		req.Params[name] = values
	}
	req.ClientToken = r.token.Reveal()
	req.WrapTTL = ""
	if r.wrap > 0 {
		req.WrapTTL = fmt.Sprintf("%ds", int(r.wrap.Seconds()))
	}
	if r.body != nil {
		if err := req.SetJSONBody(r.body); err != nil {
			return answer{}, err
		}
	}
	if r.method == http.MethodPatch {
		req.Headers.Set("Content-Type", "application/merge-patch+json")
	}
	//lint:ignore SA1019 the library's other calls are made of this one, and hide whether a mount or a path is missing
	resp, err := conn.RawRequestWithContext(ctx, req)
	if resp != nil {
		defer resp.Body.Close()
	}
	var said *api.ResponseError
	switch {
	case resp != nil && resp.StatusCode == http.StatusNotFound && errors.As(err, &said):
		if slices.ContainsFunc(said.Errors, func(e string) bool { return strings.Contains(e, "no handler for route") }) {
			return answer{}, s.unavailable(r.what(), "nothing is mounted there", "correct mount or appRole in platform.yaml, or enable it in Vault", err)
		}
	case err != nil:
		return answer{}, s.fault(r, err)
	}
	a := answer{status: resp.StatusCode}
	secret, err := api.ParseSecret(resp.Body)
	if err == nil && secret != nil {
		a.Secret = *secret
	}
	if err != nil && a.status == http.StatusOK {
		return answer{}, s.unavailable(r.what(), "its answer is not one of Vault", "check the address", err)
	}
	return a, nil
}

// what names a request in errors. No path has anything secret in it.
func (r request) what() string {
	verb := map[string]string{
		http.MethodGet: "reading", "LIST": "listing", http.MethodPost: "writing", http.MethodPut: "writing", http.MethodPatch: "writing",
	}[r.method]
	return verb + " " + r.path
}

// fault says what an error means.
func (s *session) fault(r request, err error) error {
	var (
		said      *api.ResponseError
		untrusted x509.UnknownAuthorityError
		cert      *tls.CertificateVerificationError
		own       *ownError
	)
	why, do := fmt.Sprintf("it is not reached: %v", plain(err)), "start it, or correct the address in platform.yaml; this goes on by itself once it answers"
	switch {
	case errors.Is(err, context.Canceled):
		return fmt.Errorf("%s: %s: %w", s.name, r.what(), context.Canceled)
	case errors.Is(err, context.DeadlineExceeded):
		why = "it did not answer in time"
	case errors.As(err, &untrusted), errors.As(err, &cert):
		why, do = fmt.Sprintf("its certificate is not trusted: %v", plain(err)), "correct ca in platform.yaml: the PEM file of who signed the server's certificate"
	case errors.As(err, &own):
		why, do = own.Error(), "make them files that this service may read; they are read for each connection"
	case settings.WantsCertificate(err):
		why, do = fmt.Sprintf("it does not take what this service shows of itself: %v", plain(err)), "name a client certificate that it takes as cert and key of that Vault in platform.yaml"
	case errors.As(err, &said):
		text := strings.Join(strings.Fields(strings.Join(said.Errors, "; ")), " ")
		switch {
		case said.StatusCode == http.StatusForbidden:
			return s.unavailable(r.what(), fmt.Sprintf("%s is not allowed to (403 %s)", s.service, text),
				fmt.Sprintf("give its role the policy that `towpath settings rules %s` prints", s.env), errDenied)
		case strings.Contains(text, "value being too large"), said.StatusCode == http.StatusRequestEntityTooLarge:
			return fmt.Errorf("%s: %s: %w: it is too large for Vault, which takes 1 MiB of a path with all its fields: shorten it, or let path in platform.yaml end in {key}, so that each secret has a path of its own (%s)",
				s.name, r.what(), settings.ErrInvalid, text)
		case said.StatusCode == http.StatusServiceUnavailable && strings.Contains(text, "sealed"):
			why, do = "it is sealed", "unseal it (vault operator unseal); this goes on by itself then"
		case said.StatusCode >= 500 || said.StatusCode == http.StatusTooManyRequests || said.StatusCode >= 470:
			why, do = fmt.Sprintf("it answers %d %s", said.StatusCode, text), "look at its log; this goes on by itself once it answers"
		default:
			return fmt.Errorf("%s: %s: it answers %d %s: %w", s.name, r.what(), said.StatusCode, text, errRefused)
		}
	}
	return s.unavailable(r.what(), why, do, err)
}

// plain returns an error without the request that it is about, whose URL says nothing new.
func plain(err error) error {
	var about *url.Error
	if errors.As(err, &about) {
		return about.Err
	}
	return err
}

func (s *session) unavailable(what, why, do string, err error) *settings.UnavailableError {
	return &settings.UnavailableError{Store: s.name, What: what, Why: why, Do: do, Err: err}
}
