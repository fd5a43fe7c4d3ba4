package gateway

import (
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"towpath.dev/pkg/identity"
	"towpath.dev/services/gateway/view"
)

// openPaths are the routes at which nobody has to be known. Whoever adds one has to add it here, and say why there.
var openPaths = []string{
	"GET /healthz", "GET /openapi.json", "GET /{$}", "GET /runs/{app}/{run}", "GET /runs/{app}/{run}/part", "GET /runs/{app}/{run}/log",
}

// sample makes a path of a pattern.
func sample(pattern string) (method, path string) {
	method, path, _ = strings.Cut(pattern, " ")
	for name, value := range map[string]string{
		"{$}": "", "{app}": "hello", "{run}": "1", "{env}": "dev", "{key}": "GREETING", "{actor}": "u-nobody", "{id}": "sample-1234", "{repository}": "hello.git",
	} {
		path = strings.ReplaceAll(path, name, value)
	}
	if strings.HasSuffix(path, "/audit/story") {
		path += "?of=hello/1"
	}
	if strings.HasSuffix(path, "/info/refs") {
		path += "?service=git-receive-pack"
	}
	return method, path
}

// bodies that are right, so that a refusal is not about them.
func sampleBody(pattern string) any {
	switch {
	case strings.Contains(pattern, "/v1/commands"):
		return order{ID: "sample-1234", Verb: "hold", App: "hello"}
	case strings.Contains(pattern, "POST /v1/events"):
		return newSpoken("sample-1234", said{Verb: "hold", App: "hello"}).structured()
	case strings.Contains(pattern, "/v1/submit"):
		return view.Submission{App: "hello", Image: "127.0.0.1:1/hello@sha256:" + strings.Repeat("a", 64)}
	case pattern == "POST /v1/environments":
		return view.NewEnvironment{ID: "sample-1234", Name: "demo", From: "dev"}
	case strings.Contains(pattern, "/v1/apps"):
		return map[string]string{"app": "another"}
	case strings.HasPrefix(pattern, "PUT"):
		return map[string]string{"value": "x"}
	}
	return nil
}

// Nobody unknown, and nobody without a role, gets through any route; those that are open are known.
func TestEveryRouteAsksWhoAndWhether(t *testing.T) {
	s := newStation(t)
	w := newWorking(t, helloYAML)
	w.git("push", s.remote("hello"), "main")
	nobody := s.newToken(t, identity.KindPerson)
	before := s.fold().Seq()
	for _, one := range routes() {
		method, path := sample(one.pattern)
		if one.open != "" {
			if !slices.Contains(openPaths, one.pattern) {
				t.Errorf("%s is open", one.pattern)
			}
			if strings.Contains(one.open, "capability") {
				if status, _ := s.ask(s.token, method, path, nil); status != http.StatusForbidden {
					t.Errorf("%s without its capability: %d", one.pattern, status)
				}
				if status, _ := s.ask("", method, path+"?key=AAAA", nil); status != http.StatusForbidden {
					t.Errorf("%s with a wrong capability: %d", one.pattern, status)
				}
			}
			continue
		}
		for token, want := range map[string]int{"": 401, "nonsense": 401, strings.Repeat("x", 600): 401, nobody: 403} {
			if status, answer := s.ask(token, method, path, sampleBody(one.pattern)); status != want {
				t.Errorf("%s as %.10q: %d, want %d: %s", one.pattern, token, status, want, answer)
			}
		}
	}
	if after := s.fold().Seq(); after != before {
		t.Errorf("%d events came of it", after-before)
	}
}

// A password is taken for repositories alone.
func TestPasswords(t *testing.T) {
	s := newStation(t)
	request, err := http.NewRequest(http.MethodGet, s.url+"/v1/runs", nil)
	if err != nil {
		t.Fatal(err)
	}
	request.SetBasicAuth("ann", s.token)
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	if response.StatusCode != http.StatusUnauthorized {
		t.Errorf("a password opens the API: %d", response.StatusCode)
	}
}

// Roles are asked about what the request names: one that may read may not write.
func TestRoles(t *testing.T) {
	s := newStation(t)
	w := newWorking(t, helloYAML)
	w.git("push", s.remote("hello"), "main")
	may := map[string][]string{
		identity.RoleOperator:  {"POST /v1/environments", "POST /v1/commands", "PUT /v1/settings/{env}/{app}/{key}", "PUT /v1/secrets/{env}/{app}/{key}"},
		identity.RoleDeveloper: {"PUT /v1/settings/{env}/{app}/{key}", "PUT /v1/secrets/{env}/{app}/{key}", "POST /v1/apps"},
		identity.RoleApprover:  {},
		identity.RoleBot:       {"POST /v1/submit"},
	}
	for role, patterns := range may {
		token := s.newToken(t, identity.KindPerson, role)
		for _, pattern := range []string{"POST /v1/environments", "POST /v1/commands", "PUT /v1/settings/{env}/{app}/{key}", "PUT /v1/secrets/{env}/{app}/{key}", "POST /v1/apps"} {
			method, path := sample(pattern)
			body := sampleBody(pattern)
			if o, ok := body.(order); ok {
				o.ID += role
				body = o
			}
			status, answer := s.ask(token, method, path, body)
			if allowed := slices.Contains(patterns, pattern); allowed == (status == http.StatusForbidden) && pattern != "POST /v1/apps" || status == http.StatusUnauthorized {
				t.Errorf("%s as %s: %d %s", pattern, role, status, answer)
			}
		}
		if status, _ := s.ask(token, http.MethodGet, "/v1/runs", nil); status != http.StatusOK {
			t.Errorf("%s may not read: %d", role, status)
		}
	}
}

// The description names every route, and nothing else.
func TestDescription(t *testing.T) {
	var api struct {
		OpenAPI    string
		Paths      map[string]map[string]json.RawMessage
		Components map[string]map[string]json.RawMessage
	}
	if err := json.Unmarshal(description, &api); err != nil {
		t.Fatal(err)
	}
	if api.OpenAPI != "3.1.0" {
		t.Errorf("openapi %s", api.OpenAPI)
	}
	described := map[string]bool{}
	ids := map[string]bool{}
	for path, methods := range api.Paths {
		for method, text := range methods {
			var operation struct {
				OperationID string
				Summary     string
				Security    *[]any
				Parameters  []map[string]any
				Responses   map[string]any
			}
			if err := json.Unmarshal(text, &operation); err != nil {
				t.Fatal(err)
			}
			pattern := strings.ToUpper(method) + " " + path
			if path == "/" {
				pattern = "GET /{$}"
			}
			described[pattern] = true
			if operation.OperationID == "" || ids[operation.OperationID] || operation.Summary == "" || len(operation.Responses) < 2 {
				t.Errorf("%s: %+v", pattern, operation)
			}
			ids[operation.OperationID] = true
			if open := operation.Security != nil && len(*operation.Security) == 0; open != slices.Contains(openPaths, pattern) {
				t.Errorf("%s: the description is wrong about who has to be known", pattern)
			}
			for _, name := range regexp.MustCompile(`\{(\w+)\}`).FindAllStringSubmatch(path, -1) {
				if !strings.Contains(string(text), `"#/components/parameters/`+name[1]+`"`) {
					t.Errorf("%s: parameter %s is not described", pattern, name[1])
				}
			}
		}
	}
	for _, one := range routes() {
		if !described[one.pattern] {
			t.Errorf("%s is not described", one.pattern)
		}
		delete(described, one.pattern)
	}
	for pattern := range described {
		t.Errorf("%s is described and is no route", pattern)
	}
	for _, link := range regexp.MustCompile(`"#/components/(\w+)/(\w+)"`).FindAllStringSubmatch(string(description), -1) {
		if _, ok := api.Components[link[1]][link[2]]; !ok {
			t.Errorf("%s leads nowhere", link[0])
		}
	}
}

func TestNoRoute(t *testing.T) {
	s := newStation(t)
	for path, want := range map[string]int{"/v1/nothing": 404, "/v1/commands": 405, "/git/hello.git/git-receive-pack": 405, "/v1/apps/Hello/runs/1": 404, "/v1/apps/hello/runs/0": 404} {
		status, answer := s.ask(s.token, http.MethodGet, path, nil)
		if status != want || !strings.Contains(answer, `"what":`) && !strings.Contains(answer, "towpath: ") {
			t.Errorf("%s: %d %s", path, status, answer)
		}
	}
	if status, answer := s.ask("", http.MethodGet, "/healthz", nil); status != http.StatusOK || answer != "{\"status\":\"ok\"}\n" {
		t.Errorf("health: %d %s", status, answer)
	}
	if status, answer := s.ask("", http.MethodGet, "/openapi.json", nil); status != http.StatusOK || answer != string(description) {
		t.Errorf("description: %d", status)
	}
}

// 10,000 malformed requests: no panic, no event, no memory that stays.
func TestMalformedRequests(t *testing.T) {
	s := newStation(t)
	w := newWorking(t, helloYAML)
	w.git("push", s.remote("hello"), "main")
	before := s.fold().Seq()
	random := rand.New(rand.NewPCG(1, 2))
	pieces := []string{
		"", "{", "}", "[]", "null", `"x"`, "{}", `{"id":"12345678"}`, `{"id":"12345678","verb":"approve"}`, `{"verb":7}`, `{"id":"12345678","verb":"replay","app":"hello","run":-1}`,
		`{"id":"12345678","verb":"cancel","app":"hello","run":99999999999999999999}`, `{"app":"../x"}`, `{"repo":"ext::sh -c id"}`, `{"repo":"--upload-pack=id","commit":"x"}`,
		`{"image":"a@sha256:b"}`, `{"value":7}`, `{"value":null}`, strings.Repeat("[", 10_000), "\x00\xff\xfe", `{"id":"\ud800"}`, `{"id":"12345678","verb":"hold","app":"*"}`,
		`{"app":"hello","image":"x"}`, `{"app":">","poll":-1}`, `{"repository":"file:///nowhere","poll":0.5}`, `{} {}`, "0000", "001e# service=git-receive-pack\n0000",
	}
	segments := []string{"v1", "apps", "hello", "runs", "1", "-1", "99999999999999999999", "logs", "settings", "secrets", "dev", "KEY", "K E Y", "%00", "..", "%2e%2e", "*", ">", "git", "hello.git", "info", "refs", "git-receive-pack", "git-upload-pack", "commands", "submit", "events", "stuck", "environments", strings.Repeat("a", 300)}
	queries := []string{"", "?after=x", "?after=-1", "?timeout=1y&after=1", "?service=git-receive-pack", "?service=sh", "?run=x", "?app=%00", "?follow=2", "?stage=../..", "?attempt=-5", "?dryRun=1", "?key=%ff"}
	methods := []string{"GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "TRACE"}
	client := &http.Client{Timeout: 10 * time.Second}
	pick := func(list []string) string { return list[random.IntN(len(list))] }
	statuses := map[int]int{}
	for range 10_000 {
		path := "/"
		if random.IntN(4) > 0 {
			_, path = sample(routes()[random.IntN(len(routes()))].pattern)
			path, _, _ = strings.Cut(path, "?")
		}
		for range random.IntN(3) {
			path = strings.TrimSuffix(path, "/") + "/" + pick(segments)
		}
		request, err := http.NewRequest(pick(methods), s.url+strings.ReplaceAll(path, " ", "%20")+pick(queries), strings.NewReader(pick(pieces)))
		if err != nil {
			continue
		}
		if random.IntN(5) > 0 {
			request.Header.Set("Authorization", "Bearer "+s.token)
		}
		if random.IntN(10) == 0 {
			request.Header.Set("Content-Encoding", "gzip")
		}
		if random.IntN(10) == 0 {
			request.ContentLength = -1
		}
		// What is right and has an effect is not malformed.
		if request.Method == "DELETE" || request.Method == "PUT" || strings.HasSuffix(request.URL.Path, "/v1/apps") && request.Method == "POST" || strings.Contains(request.URL.RawQuery, "follow") {
			continue
		}
		response, err := client.Do(request)
		if err != nil {
			t.Fatalf("%s %s: %v", request.Method, request.URL, err)
		}
		io.Copy(io.Discard, response.Body)
		response.Body.Close()
		statuses[response.StatusCode]++
		// Whom these ask is not there, and that is no fault of the gateway's.
		away := strings.Contains(request.URL.Path, "/v1/audit/coverage") && response.StatusCode == http.StatusBadGateway ||
			strings.Contains(request.URL.Path, "/v1/audit/checkpoint") && response.StatusCode == http.StatusServiceUnavailable
		if response.StatusCode >= 500 && !away {
			t.Errorf("%s %s: %d", request.Method, request.URL, response.StatusCode)
		}
	}
	t.Logf("answers %v", statuses)
	if s.panics.Load() != 0 {
		t.Errorf("%d panics", s.panics.Load())
	}
	if after := s.fold().Seq(); after != before {
		t.Errorf("%d events", after-before)
	}
}

// Bodies that never end, and clients that send or take nothing, are given up, and cost no memory.
func TestLargeAndSlowClients(t *testing.T) {
	s := newStation(t)
	var memory runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&memory)
	before := memory.HeapAlloc
	for _, path := range []string{"/v1/commands", "/v1/submit", "/v1/apps"} {
		request, err := http.NewRequest(http.MethodPost, s.url+path, io.LimitReader(endless{}, 4<<30))
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("Authorization", "Bearer "+s.token)
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Logf("%s: cut off: %v", path, err)
			continue
		}
		if response.StatusCode != http.StatusRequestEntityTooLarge && response.StatusCode != http.StatusBadRequest {
			t.Errorf("%s: %d", path, response.StatusCode)
		}
		response.Body.Close()
	}
	runtime.GC()
	runtime.ReadMemStats(&memory)
	if grown := int64(memory.HeapAlloc) - int64(before); grown > 64<<20 {
		t.Errorf("memory grew by %d MiB", grown>>20)
	}

	// A head that is larger than any.
	connection, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer connection.Close()
	fmt.Fprintf(connection, "GET / HTTP/1.1\r\nHost: x\r\nX: %s\r\n\r\n", strings.Repeat("a", 1<<20))
	answer, _ := io.ReadAll(connection)
	if !strings.Contains(string(answer), "431") {
		t.Errorf("a large head: %.80s", answer)
	}
}

// endless is a JSON text without an end.
type endless struct{}

func (endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = ' '
	}
	return len(p), nil
}
