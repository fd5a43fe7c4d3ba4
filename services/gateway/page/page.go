// Package page draws runs for people with a browser: an index and one page for each run. It guarantees that a page is
// shown only to who has its URL, which holds a capability made with a key of the installation; that a page changes
// nothing; and that it needs no other host and, but for live updates, no JavaScript.
package page

import (
	"bytes"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"errors"
	"fmt"
	"html/template"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"time"

	"towpath.dev/events"
	"towpath.dev/pkg/wholefile"
	"towpath.dev/services/gateway/view"
)

// KeyFile is the name of the file with the key of capabilities.
const KeyFile = "view.key"

const keySize = 32

//go:embed page.html page.css page.js
var files embed.FS

// Pages draws pages and makes and checks their capabilities. It is safe for concurrent use.
type Pages struct {
	key       []byte
	templates *template.Template
	css       template.CSS
	js        template.JS
}

// New returns pages whose capabilities are made with key.
func New(key []byte) *Pages {
	css, cssErr := files.ReadFile("page.css")
	js, jsErr := files.ReadFile("page.js")
	if err := errors.Join(cssErr, jsErr); err != nil {
		panic("page: " + err.Error())
	}
	return &Pages{
		key: key, css: template.CSS(css), js: template.JS(js),
		templates: template.Must(template.New("").ParseFS(files, "page.html")),
	}
}

// LoadKey reads the key from a file, which it makes where there is none, mode 0600.
func LoadKey(path string) ([]byte, error) {
	key, err := os.ReadFile(path)
	if err == nil && len(key) != keySize {
		return nil, fmt.Errorf("key %s has %d bytes, not %d: remove it, and a new one is made", path, len(key), keySize)
	}
	if err == nil || !errors.Is(err, fs.ErrNotExist) {
		return key, err
	}
	key = make([]byte, keySize)
	if _, err := rand.Read(key); err != nil {
		return nil, fmt.Errorf("making key %s: %w", path, err)
	}
	if err := wholefile.Write(path, key, 0o600); err != nil {
		return nil, fmt.Errorf("making a key for the pages' links: %w", err)
	}
	return key, nil
}

// capability lets its holder see one thing.
func (p *Pages) capability(what string) string {
	mac := hmac.New(sha256.New, p.key)
	mac.Write([]byte("towpath page " + what))
	return base64.RawURLEncoding.EncodeToString(mac.Sum(nil)[:16])
}

func runName(app events.Slug, run int) string { return fmt.Sprintf("run %s/%d", app, run) }

// IndexPath is the path of the index, with its capability.
func (p *Pages) IndexPath() string { return "/?key=" + p.capability("index") }

// RunPath is the path of a run's page, with its capability.
func (p *Pages) RunPath(app events.Slug, run int) string {
	return fmt.Sprintf("/runs/%s/%d?key=%s", app, run, p.capability(runName(app, run)))
}

// MaySeeIndex and MaySeeRun report whether a request holds the capability.
func (p *Pages) MaySeeIndex(r *http.Request) bool { return p.holds(r, "index") }

// MaySeeRun reports whether a request holds the capability for a run.
func (p *Pages) MaySeeRun(r *http.Request, app events.Slug, run int) bool {
	return p.holds(r, runName(app, run))
}

func (p *Pages) holds(r *http.Request, what string) bool {
	return hmac.Equal([]byte(r.URL.Query().Get("key")), []byte(p.capability(what)))
}

// frame is what every page has.
type frame struct {
	Title   string
	Nonce   string
	CSS     template.CSS
	JS      template.JS
	Refresh bool // without JavaScript the page is loaded again
	Body    any
}

// Index sends the page that lists runs.
func (p *Pages) Index(w http.ResponseWriter, runs []view.Run, now time.Time) error {
	body := indexBody{}
	for _, run := range runs {
		body.Runs = append(body.Runs, p.row(run, now))
	}
	return p.send(w, "index", frame{Title: "Runs", Refresh: true, Body: body})
}

// Run sends the page of a run.
func (p *Pages) Run(w http.ResponseWriter, run view.Run, endpoints map[string]string, now time.Time) error {
	body := p.body(run, endpoints, now)
	return p.send(w, "run", frame{Title: run.Run + " " + string(run.Status), Refresh: !body.Ended, Body: body})
}

// Part sends the part of a run's page that changes, for its script.
func (p *Pages) Part(w http.ResponseWriter, run view.Run, endpoints map[string]string, now time.Time) error {
	return p.send(w, "part", frame{Body: p.body(run, endpoints, now)})
}

// send writes a page with the headers that keep it to itself.
func (p *Pages) send(w http.ResponseWriter, name string, f frame) error {
	random := make([]byte, 16)
	if _, err := rand.Read(random); err != nil {
		return fmt.Errorf("drawing a page: %w", err)
	}
	f.Nonce, f.CSS, f.JS = base64.RawURLEncoding.EncodeToString(random), p.css, p.js
	var out bytes.Buffer
	if err := p.templates.ExecuteTemplate(&out, name, f); err != nil {
		return fmt.Errorf("drawing a page: %w", err)
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'nonce-"+f.Nonce+"'; script-src 'nonce-"+f.Nonce+
		"'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
	_, err := w.Write(out.Bytes())
	return err
}

// logURL is where a stage's output is.
func (p *Pages) logURL(run view.Run, s view.Stage) string {
	q := url.Values{"key": {p.capability(runName(events.Slug(run.App), run.Number))}, "stage": {s.Stage}}
	if s.Env != "" {
		q.Set("env", s.Env)
	}
	return fmt.Sprintf("/runs/%s/%d/log?%s", run.App, run.Number, q.Encode())
}
