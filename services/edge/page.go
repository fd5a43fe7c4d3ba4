package edge

import (
	"encoding/json"
	"fmt"
	"html/template"
	"net"
	"net/http"
	"strings"
)

// fault is an answer that the edge gives itself.
type fault struct {
	What string   `json:"what"`
	On   string   `json:"on"`
	Why  string   `json:"why"`
	Do   string   `json:"do"`
	Code int      `json:"code"`
	Apps []string `json:"apps,omitempty"` // URLs of what can be reached
}

var faultPage = template.Must(template.New("fault").Parse(`<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{{.Code}} {{.What}}</title>
<style>body{font:16px/1.5 system-ui,sans-serif;max-width:42em;margin:4em auto;padding:0 1em}h1{font-size:1.3em}</style></head>
<body><h1>{{.What}}</h1>
<p>{{.Why}}</p>
<p>{{.Do}}</p>
{{if .Apps}}<ul>{{range .Apps}}<li><a href="{{.}}">{{.}}</a></li>{{end}}</ul>{{end}}
<p><small>{{.Code}} · Towpath's edge, on {{.On}}</small></p>
</body></html>
`))

// page answers in HTML where the client asks for it, else in JSON.
func (p *proxy) page(w http.ResponseWriter, r *http.Request, code int, f fault) {
	f.Code = code
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	if strings.Contains(r.Header.Get("Accept"), "text/html") {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.WriteHeader(code)
		faultPage.Execute(w, f)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	json.NewEncoder(w).Encode(map[string]fault{"error": f})
}

// notFound answers for a host name that nothing runs under, with what does.
func (p *proxy) notFound(w http.ResponseWriter, r *http.Request, why string) {
	port := ""
	if local, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr); ok {
		if _, number, err := net.SplitHostPort(local.String()); err == nil && number != "80" {
			port = ":" + number
		}
	}
	f := fault{What: "no such app", On: quoted(r.Host), Why: why, Do: "apps are at http://<app>.<env>." + p.domain + port + "; none runs yet"}
	for _, place := range p.table.places() {
		f.Apps = append(f.Apps, fmt.Sprintf("http://%s.%s%s/", place, p.domain, port))
	}
	if len(f.Apps) > 0 {
		f.Do = "use one of these"
	}
	p.page(w, r, http.StatusNotFound, f)
}

// quoted shows what a client sent, shortened.
func quoted(s string) string { return fmt.Sprintf("%.100q", s) }
