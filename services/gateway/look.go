package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"towpath.dev/events"
	"towpath.dev/pkg/ledger"
	"towpath.dev/pkg/ledger/fold"
	"towpath.dev/pkg/pause"
	"towpath.dev/services/gateway/view"
)

// maxRuns is how many runs one answer lists.
const maxRuns = 500

func doHealth(c *call) error {
	writeJSON(c.w, http.StatusOK, struct {
		Status string `json:"status"`
	}{"ok"})
	return nil
}

func doRuns(c *call) error {
	q := c.r.URL.Query()
	app := events.Slug(q.Get("app"))
	if app != "" && c.s.fold().App(app) == nil {
		return c.s.noApp(app)
	}
	runs := view.Runs(c.s.fold().Apps(), app, q.Get("state"), c.s.runURL)
	writeJSON(c.w, http.StatusOK, runs[:min(len(runs), maxRuns)])
	return nil
}

// longestPoll is how long a question about a run that does not change is held.
const longestPoll = 60 * time.Second

func doRun(c *call) error {
	app, run, err := c.found()
	if err != nil {
		return err
	}
	if c.r.URL.Query().Get("after") != "" {
		after, timeout, err := pollOf(c.r)
		if err != nil {
			return err
		}
		app, run = c.changed(app, run, after, timeout)
	}
	writeJSON(c.w, http.StatusOK, c.s.show(c.r.Context(), app, run, c.s.runURL(c.app, c.run)))
	return nil
}

// pollOf reads how a caller wants to wait: ?after=SEQ&timeout=30s.
func pollOf(r *http.Request) (after uint64, timeout time.Duration, err error) {
	q := r.URL.Query()
	if after, err = strconv.ParseUint(q.Get("after"), 10, 64); err != nil {
		return 0, 0, invalid("waiting for a run", fmt.Sprintf("after=%.40s", q.Get("after")), "it must be the seq of an earlier answer", "")
	}
	timeout = 30 * time.Second
	if text := q.Get("timeout"); text != "" {
		if timeout, err = time.ParseDuration(text); err != nil || timeout < 0 {
			return 0, 0, invalid("waiting for a run", fmt.Sprintf("timeout=%.40s", text), "it must be a duration such as 30s", "")
		}
	}
	return after, min(timeout, longestPoll), nil
}

// changed waits until an event later than after has changed the run's app, for a time, and returns it as it is then.
func (c *call) changed(app *fold.App, run *fold.Run, after uint64, timeout time.Duration) (*fold.App, *fold.Run) {
	ctx, cancel := c.whileOpen(timeout)
	defer cancel()
	if next, err := c.s.fold().WaitApp(ctx, c.app, after); err == nil && next.Run(c.run) != nil {
		return next, next.Run(c.run)
	}
	return app, run
}

// whileOpen ends when the client goes, the gateway stops, or time is up; 0: no time.
func (c *call) whileOpen(timeout time.Duration) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(c.r.Context())
	if timeout > 0 {
		ctx, cancel = context.WithTimeout(c.r.Context(), timeout)
	}
	stop := context.AfterFunc(c.s.stopping, cancel)
	return ctx, func() { stop(); cancel() }
}

// stream is an answer that grows. Each piece is sent at once, and a client that takes none for a while is given up.
type stream struct {
	w       http.ResponseWriter
	control *http.ResponseController
}

func (c *call) stream(contentType string) stream {
	c.w.Header().Set("Content-Type", contentType)
	c.w.Header().Set("Cache-Control", "no-store")
	c.w.Header().Set("X-Accel-Buffering", "no")
	s := stream{c.w, http.NewResponseController(c.w)}
	s.control.SetWriteDeadline(time.Now().Add(patience))
	c.w.WriteHeader(http.StatusOK)
	s.control.Flush()
	return s
}

func (s stream) Write(p []byte) (int, error) {
	s.control.SetWriteDeadline(time.Now().Add(patience))
	n, err := s.w.Write(p)
	if err == nil {
		err = s.control.Flush()
	}
	return n, err
}

// doLogs sends what a run's stages have printed, all of them or those that were asked for.
func doLogs(c *call) error {
	_, run, err := c.found()
	if err != nil {
		return err
	}
	wanted, err := logsWanted(c.r, run)
	if err != nil {
		return err
	}
	follow := c.r.URL.Query().Get("follow") == "1"
	out := c.stream("text/plain; charset=utf-8")
	ctx, cancel := c.whileOpen(0)
	defer cancel()
	for i, one := range wanted {
		var to io.Writer = out
		if len(wanted) > 1 {
			to = &headed{to: out, head: logHead(one, i)}
		}
		if err := c.s.copyLog(ctx, run, one, follow, to); err != nil {
			c.s.logger.Debug("a log was not sent whole", "run", run.Name(), "stage", one.stage, "err", err)
			return nil
		}
	}
	return nil
}

// logWanted is one attempt at one stage.
type logWanted struct {
	stage   string
	env     events.Slug
	attempt int
}

// logsWanted chooses stages of a run: ?stage=&env=&attempt=.
func logsWanted(r *http.Request, run *fold.Run) ([]logWanted, error) {
	q := r.URL.Query()
	stage, env := q.Get("stage"), events.Slug(q.Get("env"))
	attempt := 0
	if text := q.Get("attempt"); text != "" {
		var err error
		if attempt, err = strconv.Atoi(text); err != nil || attempt < 1 || attempt > 1<<20 {
			return nil, invalid("reading logs", fmt.Sprintf("attempt=%.40s", text), "attempts count from 1", "")
		}
	}
	var list []logWanted
	for _, s := range view.NewRun(&fold.App{Name: run.App}, run, "").Stages {
		if stage != "" && s.Stage != stage || env != "" && s.Env != string(env) {
			continue
		}
		one := logWanted{s.Stage, events.Slug(s.Env), s.Attempt}
		if attempt > 0 {
			one.attempt = attempt
		}
		list = append(list, one)
	}
	if len(list) == 0 {
		return nil, notFound("reading logs", strings.TrimSpace(run.Name()+" "+stage+" "+string(env)), "it has no such stage",
			"stage is build, vet, promote or verify; env one of "+joined(run.Definition.EnvironmentNames()))
	}
	return list, nil
}

// logServices are the services that keep the stages' output.
var logServices = map[string]string{
	fold.StageBuild: "build", fold.StageVet: "vet", fold.StagePromote: "promote", fold.StageVerify: "verify",
}

// copyLog copies one stage's output. It follows while the stage is under way, and ends with the log's end, or when the
// stage has ended without one.
func (s *Service) copyLog(ctx context.Context, run *fold.Run, one logWanted, follow bool, to io.Writer) error {
	key := ledger.LogKey{Service: logServices[one.stage], App: run.App, Run: run.N, Env: one.env, Stage: one.stage, Attempt: one.attempt}
	if !follow || s.stageEnded(run, one) {
		return s.rt.Ledger.ReadLog(ctx, key, false, to)
	}
	ended, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		defer cancel()
		for after := uint64(0); ; {
			app, err := s.fold().WaitApp(ended, run.App, after)
			if err != nil {
				return
			}
			if after = app.Seq; s.stageEnded(app.Run(run.N), one) {
				// Its last lines may still come in after its stage has ended.
				_ = pause.For(ended, time.Second)
				return
			}
		}
	}()
	err := s.rt.Ledger.ReadLog(ended, key, true, to)
	if err != nil && ctx.Err() == nil && errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// stageEnded reports whether nothing more will be printed by the attempt.
func (s *Service) stageEnded(run *fold.Run, one logWanted) bool {
	if run == nil || run.Status().Ended() {
		return true
	}
	stage, ok := run.Stage(one.stage, one.env)
	return !ok || stage.Attempt != one.attempt || stage.Ended() || stage.Status == fold.Skipped
}

// headed writes a heading before the first piece.
type headed struct {
	to   io.Writer
	head string
}

func (h *headed) Write(p []byte) (int, error) {
	if h.head != "" {
		if _, err := io.WriteString(h.to, h.head); err != nil {
			return 0, err
		}
		h.head = ""
	}
	return h.to.Write(p)
}

func logHead(one logWanted, i int) string {
	text := "── " + one.stage
	if one.env != "" {
		text += " " + string(one.env)
	}
	if one.attempt > 1 {
		text += fmt.Sprintf(" (attempt %d)", one.attempt)
	}
	if i > 0 {
		text = "\n" + text
	}
	return text + "\n"
}

func doEnvironments(c *call) error {
	writeJSON(c.w, http.StatusOK, c.s.environments())
	return nil
}

func doEnvironment(c *call) error {
	if err := c.s.knownEnvironment(c.env); err != nil {
		return err
	}
	writeJSON(c.w, http.StatusOK, view.Deployments(c.s.fold().Apps(), c.env, c.s.cfg.Edge))
	return nil
}

func orNone(text string) string {
	if text == "" {
		return "none yet"
	}
	return text
}

func doStuck(c *call) error {
	writeJSON(c.w, http.StatusOK, view.Stuck(c.s.fold().Apps()))
	return nil
}

func doAlarms(c *call) error {
	writeJSON(c.w, http.StatusOK, c.s.alarms())
	return nil
}

// alarms are those that stand, oldest first.
func (s *Service) alarms() []view.Alarm {
	standing, _ := s.fold().Alarms(events.Gateway)
	return view.Alarms(standing)
}

// discardRecord is for reading only to see whether reading works.
func discardRecord(ledger.Record) error { return nil }
