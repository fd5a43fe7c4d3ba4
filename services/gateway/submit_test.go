package gateway

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"towpath.dev/pkg/identity"
	"towpath.dev/services/gateway/view"
)

func TestSubmit(t *testing.T) {
	s := newStation(t)
	w := newWorking(t, helloYAML)
	head := w.git("rev-parse", "HEAD")
	repo := "file://" + w.dir
	one := get[view.Submitted](s, "POST", "/v1/submit", view.Submission{Repo: repo, Commit: head})
	if one.Run != "hello/1" || !strings.HasPrefix(one.URL, s.url+"/runs/hello/1?key=") || len(one.Blockers) == 0 {
		t.Errorf("submitted %+v", one)
	}
	run := s.run("hello", 1)
	if run.Start.RepositoryURL != repo || run.Start.Ref != "refs/heads/main" || run.Start.SHA != head || len(run.Start.Authors) != 1 {
		t.Errorf("start %+v", run.Start)
	}
	if again := get[view.Submitted](s, "POST", "/v1/submit", view.Submission{Repo: repo + "/", Commit: head}); again.Run != "hello/1" {
		t.Errorf("the same commit again is %s", again.Run)
	}
	if again := get[view.Submitted](s, "POST", "/v1/submit", view.Submission{Repo: repo, Ref: "main"}); again.Run != "hello/1" {
		t.Errorf("the branch's newest commit is %s", again.Run)
	}
	w.write("more", "x")
	next := w.commit("Second")
	if second := get[view.Submitted](s, "POST", "/v1/submit", view.Submission{Repo: repo, Ref: "refs/heads/main"}); second.Run != "hello/2" {
		t.Errorf("the next commit is %s", second.Run)
	}
	if start := s.run("hello", 2).Start; start.OldSHA != head || start.SHA != next || start.Predecessor != 1 {
		t.Errorf("start %+v", start)
	}
	if rebuilt := get[view.Submitted](s, "POST", "/v1/submit", view.Submission{Repo: repo, Commit: next, Rebuild: true}); rebuilt.Run != "hello/3" || !s.run("hello", 3).Start.Rebuild {
		t.Errorf("a rebuild is %s", rebuilt.Run)
	}

	w.write("towpath.yaml", "app: hello\nenvironments: [{name: Dev}]\n")
	bad := w.commit("Bad")
	w.git("rm", "--quiet", "towpath.yaml")
	none := w.commit("None")
	elsewhere := newWorking(t, helloYAML)
	for name, c := range map[string]struct {
		body   view.Submission
		status int
		text   string
	}{
		"no commit":         {view.Submission{Repo: repo}, 400, "--commit SHA"},
		"short commit":      {view.Submission{Repo: repo, Commit: "abc"}, 400, "40 hexadecimal digits"},
		"unknown commit":    {view.Submission{Repo: repo, Commit: strings.Repeat("0123456789", 4)}, 404, strings.Repeat("0123456789", 4)},
		"unknown branch":    {view.Submission{Repo: repo, Ref: "moon"}, 404, "it is not there"},
		"unknown place":     {view.Submission{Repo: repo + "/nowhere", Commit: head}, 502, "nowhere"},
		"no repository":     {view.Submission{App: "hello", Commit: head}, 400, "add --repo URL"},
		"an option":         {view.Submission{Repo: "--upload-pack=id", Commit: head}, 400, "one word"},
		"another transport": {view.Submission{Repo: "ext::sh -c id", Commit: head}, 400, "one word"},
		"a password":        {view.Submission{Repo: "https://u:" + canary + "@h/p", Commit: head}, 400, "must not hold a password"},
		"faulty file":       {view.Submission{Repo: repo, Commit: bad}, 422, "towpath.yaml:2: environments[0].name: must be"},
		"no file":           {view.Submission{Repo: repo, Commit: none}, 422, "towpath.yaml is missing at its root"},
		"another app":       {view.Submission{App: "other", Repo: repo, Commit: head}, 422, "is of app hello, not other"},
		"another's app":     {view.Submission{Repo: "file://" + elsewhere.dir, Commit: elsewhere.git("rev-parse", "HEAD")}, 409, "app hello belongs to " + repo},
		"a bad branch":      {view.Submission{Repo: repo, Ref: "refs/tags/x"}, 400, "it is not a branch"},
	} {
		status, answer := s.ask(s.token, "POST", "/v1/submit", c.body)
		if status != c.status || !strings.Contains(answer, c.text) || strings.Contains(answer, canary) {
			t.Errorf("%s: %d %s", name, status, answer)
		}
	}
	if out, err := w.try("push", s.remote("hello"), "main"); err == nil || !strings.Contains(out, "its repository is "+repo) {
		t.Errorf("pushed to an app that is followed elsewhere: %v\n%s", err, out)
	}
	bot := s.newToken(t, identity.KindBot, identity.RoleBot)
	if status, answer := s.ask(bot, "POST", "/v1/submit", view.Submission{Repo: repo, Commit: next}); status != http.StatusOK {
		t.Errorf("a bot submits to a known app: %d %s", status, answer)
	}
	fresh := newWorking(t, "app: fresh\nenvironments: [{name: dev}]\n")
	if status, answer := s.ask(bot, "POST", "/v1/submit", view.Submission{Repo: "file://" + fresh.dir, Ref: "main"}); status != http.StatusForbidden {
		t.Errorf("a bot makes an app: %d %s", status, answer)
	}
	if s.fold().App("hello").Runs.Len() != 3 || s.fold().App("fresh") != nil {
		t.Error("something that was refused left a run")
	}
}

func TestSubmitHosted(t *testing.T) {
	s, w := pushed(t)
	first := w.git("rev-parse", "HEAD")
	w.commit("Second")
	w.git("push", s.remote("hello"), "main")
	if again := get[view.Submitted](s, "POST", "/v1/submit", view.Submission{App: "hello", Commit: first}); again.Run != "hello/3" {
		t.Errorf("an earlier commit is %s", again.Run)
	}
	if status, answer := s.ask(s.token, "POST", "/v1/submit", view.Submission{App: "hello", Commit: strings.Repeat("0123456789", 4)}); status != 404 {
		t.Errorf("%d %s", status, answer)
	}
}

func TestSubmitImage(t *testing.T) {
	s := newStation(t)
	image := "127.0.0.1:5000/team/hello@sha256:" + strings.Repeat("ab", 32)
	body := view.Submission{App: "hello", Image: image}
	if status, answer := s.ask(s.token, "POST", "/v1/submit", body); status != 422 || !strings.Contains(answer, "it has no run yet") {
		t.Errorf("%d %s", status, answer)
	}
	body.Definition = helloYAML
	one := get[view.Submitted](s, "POST", "/v1/submit", body)
	run := s.run("hello", 1)
	if one.Run != "hello/1" || !run.Image || run.Artifact.Digest != "sha256:"+strings.Repeat("ab", 32) || run.ArtifactID == "" || string(run.Build.Status) != "skipped" {
		t.Errorf("run %+v", run)
	}
	if again := get[view.Submitted](s, "POST", "/v1/submit", view.Submission{App: "hello", Image: image}); again.Run != "hello/1" {
		t.Errorf("the same image again is %s", again.Run)
	}
	next := "127.0.0.1:5000/team/hello:v2@sha256:" + strings.Repeat("cd", 32)
	if second := get[view.Submitted](s, "POST", "/v1/submit", view.Submission{App: "hello", Image: next}); second.Run != "hello/2" {
		t.Errorf("the next image is %s", second.Run)
	}
	w := newWorking(t, helloYAML)
	third := "127.0.0.1:5000/team/hello@sha256:" + strings.Repeat("ef", 32)
	if third := get[view.Submitted](s, "POST", "/v1/submit", view.Submission{Image: third, Repo: "file://" + w.dir, Ref: "main"}); third.Run != "hello/3" {
		t.Errorf("an image with its repository is %s", third.Run)
	}
	if start := s.run("hello", 3).Start; start.SHA != w.git("rev-parse", "HEAD") || len(start.Authors) != 1 {
		t.Errorf("start %+v", start)
	}
	for _, wrong := range []view.Submission{{App: "hello", Image: "hello:latest"}, {App: "hello", Image: "x@sha256:zz"}, {App: "hello", Image: image, Definition: "app: ["}, {App: "other", Image: image, Definition: helloYAML}} {
		if status, answer := s.ask(s.token, "POST", "/v1/submit", wrong); status != 400 && status != 422 {
			t.Errorf("%+v: %d %s", wrong, status, answer)
		}
	}
}

func TestFollowedRepository(t *testing.T) {
	s := newStation(t)
	w := newWorking(t, helloYAML)
	app := get[view.App](s, "POST", "/v1/apps", map[string]any{"repository": "file://" + w.dir, "branch": "main", "poll": 1})
	if app.App != "hello" || app.Poll != 1 || app.Git != "" {
		t.Errorf("app %+v", app)
	}
	if again := get[view.App](s, "POST", "/v1/apps", map[string]any{"repository": "file://" + w.dir, "branch": "main", "poll": 1}); again.App != "hello" {
		t.Errorf("added again %+v", again)
	}
	runs := func(n int) func() bool {
		return func() bool { return s.fold().App("hello").Runs.Len() == n }
	}
	eventually(t, "the first commit is a run", runs(1))
	w.write("n", "2")
	second := w.commit("Second")
	eventually(t, "the second commit is a run", runs(2))
	if start := s.run("hello", 2).Start; start.SHA != second || start.Actor == "" || start.RepositoryURL != "file://"+w.dir {
		t.Errorf("start %+v", start)
	}
	w.write("towpath.yaml", "app: hello\nenvironments: []\n")
	w.commit("Faulty")
	eventually(t, "the trouble shows", func() bool {
		return strings.Contains(get[[]view.App](s, "GET", "/v1/apps", nil)[0].Trouble, "towpath.yaml:2: environments")
	})
	w.write("towpath.yaml", helloYAML)
	w.commit("Mended")
	eventually(t, "the mended commit is a run", runs(3))

	// While the gateway is down the branch moves twice: at the next look its newest commit is the run.
	cfg := s.cfg
	cfg.Listen = strings.TrimPrefix(s.url, "http://")
	s.end()
	w.commit("Fourth")
	fifth := w.commit("Fifth")
	s.start(cfg)
	eventually(t, "what came while it was down is a run", runs(4))
	if start := s.run("hello", 4).Start; start.SHA != fifth {
		t.Errorf("start %+v", start)
	}
	// The same commit submitted as well is the same run.
	if same := get[view.Submitted](s, "POST", "/v1/submit", view.Submission{Repo: "file://" + w.dir, Commit: fifth}); same.Run != "hello/4" {
		t.Errorf("submitted too: %s", same.Run)
	}
	if err := os.Rename(filepath.Join(w.dir, ".git"), filepath.Join(w.dir, "gone")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "an unreachable repository shows", func() bool {
		return get[[]view.App](s, "GET", "/v1/apps", nil)[0].Trouble != ""
	})
	for name, body := range map[string]any{
		"poll":     map[string]any{"repository": "file://" + w.dir, "poll": -1},
		"nothing":  map[string]any{},
		"a name":   map[string]any{"app": "Hello"},
		"too rare": map[string]any{"repository": "file://" + w.dir, "poll": 100_000},
		"hosted":   map[string]any{"app": "mine", "poll": 5},
	} {
		if status, answer := s.ask(s.token, "POST", "/v1/apps", body); status != 400 {
			t.Errorf("%s: %d %s", name, status, answer)
		}
	}
	if status, answer := s.ask(s.token, "POST", "/v1/apps", map[string]any{"app": "hello"}); status != http.StatusConflict {
		t.Errorf("another app of the same name: %d %s", status, answer)
	}
	get[view.App](s, "POST", "/v1/apps", map[string]any{"app": "mine"})
	if status, answer := s.ask(s.token, "GET", "/v1/runs?app=mine", nil); status != 200 || answer != "[]\n" {
		t.Errorf("%d %s", status, answer)
	}
}

func TestRefuseFiles(t *testing.T) {
	s := newStation(t)
	cfg := s.cfg
	s.end()
	cfg.RefuseFiles = true
	s.start(cfg)
	if status, answer := s.ask(s.token, "POST", "/v1/submit", view.Submission{Repo: "file:///etc", Commit: strings.Repeat("0", 40)}); status != 422 {
		t.Errorf("%d %s", status, answer)
	}
}

// Forty submissions of one commit at once are one run.
func TestSubmissionsAtOnce(t *testing.T) {
	s := newStation(t)
	w := newWorking(t, helloYAML)
	head := w.git("rev-parse", "HEAD")
	answers := make(chan string)
	for range 40 {
		go func() {
			_, answer := s.ask(s.token, "POST", "/v1/submit", view.Submission{Repo: "file://" + w.dir, Commit: head})
			answers <- answer
		}()
	}
	for range 40 {
		contains(t, <-answers, `"hello/1"`)
	}
	if runs := s.fold().App("hello").Runs.Len(); runs != 1 {
		t.Errorf("%d runs", runs)
	}
}
