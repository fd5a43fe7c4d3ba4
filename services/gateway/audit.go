package gateway

import (
	"context"
	"fmt"
	"net/http"
	"time"

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
