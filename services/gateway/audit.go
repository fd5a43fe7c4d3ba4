package gateway

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"towpath.dev/events"
	"towpath.dev/pkg/ledger/fold"
	"towpath.dev/pkg/proof"
	"towpath.dev/pkg/seal"
)

// doCheckpoint says how far the ledger is sealed.
func doCheckpoint(c *call) error {
	status, err := seal.Ask(c.r.Context(), c.s.rt.Ledger.Conn())
	if err != nil {
		return unavailable("asking how far the ledger is sealed", err)
	}
	writeJSON(c.w, http.StatusOK, status)
	return nil
}

// unavailable is the answer where the ledger service does not give one.
func unavailable(what string, err error) *problem {
	return &problem{
		Status: http.StatusServiceUnavailable, What: what, Why: err.Error(),
		Do: "see whether the ledger service runs, and its log", Code: codeUnavailable,
	}
}

// lateSeal is how long an event may wait to be sealed before doctor says so.
const lateSeal = time.Minute

// checkSeal says whether the ledger is sealed, is what was sealed, and is witnessed.
func (s *Service) checkSeal(ctx context.Context) check {
	status, err := seal.Ask(ctx, s.rt.Ledger.Conn())
	switch {
	case err != nil:
		return check{"seal", checkBroken, "nothing is sealed: " + err.Error(), "see whether the ledger service runs, and its log"}
	case status.Alarm != "":
		return check{"seal", checkBroken, "THE LEDGER IS NOT WHAT WAS SEALED: " + status.Alarm,
			"keep the data folder and the last witnessed checkpoint as they are, find out who changed the ledger, and verify what was exported before: towpath audit verify"}
	case status.Serial == 0:
		return check{"seal", checkWarning, "nothing is sealed yet", "wait a moment; if that does not help, see the ledger service's log"}
	case status.Trouble != "":
		return check{"seal", checkBroken, "the witness does not cosign: " + status.Trouble, "see whether the witness runs; if it refuses, the ledger was rolled back or forked"}
	}
	detail := fmt.Sprintf("checkpoint %d seals %d events, %s ago", status.Serial, status.Size, time.Since(status.At).Round(time.Second))
	if status.Head > status.Size+1 && time.Since(status.At) > lateSeal {
		return check{"seal", checkWarning, detail + fmt.Sprintf("; %d wait", status.Head-status.Size), "see the ledger service's log"}
	}
	if status.Witness == "" {
		return check{"seal", checkOK, detail + "; nobody witnesses it (witness in platform.yaml)", ""}
	}
	return check{"seal", checkOK, detail + "; witnessed", ""}
}

// exportTimeout bounds one export: the ledger is read once, and the evidence fetched.
const exportTimeout = 5 * time.Minute

// doExport sends the proof of a run, of what runs in an environment, or of a digest.
func doExport(c *call) error {
	ctx, cancel := c.whileOpen(exportTimeout)
	defer cancel()
	wish, err := c.wish()
	if err != nil {
		return err
	}
	conn := c.s.rt.Ledger.Conn()
	status, err := seal.Now(ctx, conn)
	if errors.Is(err, seal.ErrAlarm) {
		return &problem{
			Status: http.StatusConflict, What: "exporting a proof", Why: err.Error(),
			Do: "verify what was exported before; towpath doctor says more", Code: codeConflict,
		}
	}
	if err != nil {
		return unavailable("sealing what is new", err)
	}
	data, err := proof.Export(ctx, proof.Source{
		Ledger: c.s.rt.Ledger, Hashes: seal.Hashes(ctx, conn), Status: status, Trust: c.s.rt.Ledger.Trust(), Registry: c.s.evidence,
	}, wish)
	if err != nil {
		return &problem{
			Status: http.StatusBadGateway, What: "exporting a proof", On: fold.Name(wish.App, wish.Run), Why: err.Error(),
			Do: "see whether the registry and the ledger service answer: towpath doctor", Code: codeFailed,
		}
	}
	out := c.stream(proof.MediaType)
	if _, err := out.Write(data); err != nil {
		c.s.logger.Debug("a proof was not sent whole", "run", fold.Name(wish.App, wish.Run), "err", err)
	}
	return nil
}

// wish reads what is to be proven: ?app=&run=, ?app=&env=, or ?digest=; &whole=1, &extends=SIZE.
func (c *call) wish() (proof.Wish, error) {
	q := c.r.URL.Query()
	w := proof.Wish{Whole: q.Get("whole") == "1"}
	w.App, w.Environment = events.Slug(q.Get("app")), events.Slug(q.Get("env"))
	for name, to := range map[string]*uint64{"run": nil, "extends": &w.Extends} {
		text := q.Get(name)
		n, err := strconv.ParseUint(text, 10, 31)
		if text != "" && (err != nil || n == 0) {
			return w, invalid("exporting a proof", fmt.Sprintf("%s=%.40s", name, text), "it must be a number from 1", "")
		}
		if to == nil {
			w.Run = int(n)
		} else {
			*to = n
		}
	}
	if digest := q.Get("digest"); digest != "" {
		return w, c.s.ofDigest(digest, &w)
	}
	app := c.s.fold().App(w.App)
	if app == nil {
		return w, c.s.noApp(w.App)
	}
	if w.Environment != "" {
		live := app.Env(w.Environment).Live()
		if live == nil || live.Kind == events.KindRemove {
			return w, notFound("finding what runs in", fmt.Sprintf("%s@%s", w.App, w.Environment), "nothing does", "towpath env show "+string(w.Environment))
		}
		if w.Run != 0 && w.Run != live.Run {
			return w, notFound("finding what runs in", fmt.Sprintf("%s@%s", w.App, w.Environment), fmt.Sprintf("it is %s", fold.Name(w.App, live.Run)), "leave the run out")
		}
		w.Run = live.Run
	}
	if app.Run(w.Run) == nil {
		return w, notFound("finding run", fold.Name(w.App, w.Run), "there is no such run", fmt.Sprintf("towpath runs --app %s lists them", w.App))
	}
	return w, nil
}

// ofDigest finds the newest run whose image has a digest.
func (s *Service) ofDigest(digest string, w *proof.Wish) error {
	for _, app := range s.fold().Apps() {
		for run := range app.Runs.All() {
			if run.Artifact != nil && run.Artifact.Digest == digest && (w.App == "" || w.App == app.Name) && (w.Run <= run.N || w.App != app.Name) {
				w.App, w.Run = app.Name, run.N
			}
		}
	}
	if w.Run == 0 {
		return notFound("finding image", fmt.Sprintf("%.80s", digest), "no run has it", "towpath env show prod names those that run")
	}
	return nil
}
