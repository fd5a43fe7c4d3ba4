package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"towpath.dev/events"
	"towpath.dev/pkg/ledger"
)

// check is one thing that doctor looked at.
type check struct {
	Name   string `json:"name"`
	Status string `json:"status"` // ok, warning, broken
	Detail string `json:"detail"`
	Fix    string `json:"fix,omitempty"`
}

// How a check came out.
const (
	checkOK      = "ok"
	checkWarning = "warning"
	checkBroken  = "broken"
)

// checkBound is how long one check may take.
const checkBound = 5 * time.Second

// doDoctor looks at what only the running gateway can see, all at once.
func doDoctor(c *call) error {
	ctx, cancel := context.WithTimeout(c.r.Context(), checkBound)
	defer cancel()
	look := []func(context.Context) check{
		c.s.checkBus, c.s.checkDoor, c.s.checkSeal, c.s.checkEdge, c.s.checkSpace, c.s.checkPolicy, c.s.checkBuilds, c.s.checkPushes, c.s.checkFollowed, c.s.checkAlarms,
	}
	checks := make([]check, len(look))
	var group sync.WaitGroup
	for i, one := range look {
		group.Go(func() { checks[i] = one(ctx) })
	}
	var stores []check
	group.Go(func() { stores = c.s.checkStores(ctx) })
	group.Wait()
	writeJSON(c.w, http.StatusOK, append(checks, stores...))
	return nil
}

func (s *Service) checkBus(ctx context.Context) check {
	began := time.Now()
	last, err := s.rt.Ledger.Read(ctx, s.fold().Seq(), discardRecord)
	if err != nil {
		return check{"bus", checkBroken, "the ledger cannot be read: " + err.Error(), "see whether the bus runs, and its log"}
	}
	took := time.Since(began).Round(100 * time.Microsecond)
	if behind := last - min(last, s.fold().Seq()); behind > 100 {
		return check{"bus", checkWarning, fmt.Sprintf("the gateway is %d events behind", behind), "wait a moment; if that does not help, restart it"}
	}
	return check{"bus", checkOK, fmt.Sprintf("the ledger has %d events and answers in %s", last, took), ""}
}

// checkDoor sends what the door must refuse: an answer is a sign of life, and nothing is stored.
func (s *Service) checkDoor(ctx context.Context) check {
	subject := events.AppSubject(s.epoch(), "doctor")
	reply, err := s.rt.Ledger.Conn().RequestWithContext(ctx, subject.AppendSubject(), []byte("{}"))
	var answer ledger.Answer
	if err == nil {
		err = json.Unmarshal(reply.Data, &answer)
	}
	if err == nil && answer.Refused == "" {
		err = errors.New("it did not refuse what it must refuse")
	}
	if err != nil {
		return check{"door", checkBroken, "nothing can be recorded: " + err.Error(), "see whether the ledger service runs, and its log"}
	}
	return check{"door", checkOK, "the ledger's door answers", ""}
}

func (s *Service) checkEdge(ctx context.Context) check {
	u, err := url.Parse(s.cfg.Edge)
	if s.cfg.Edge == "" || err != nil {
		return check{"edge", checkWarning, "the gateway was not told where the edge is, so endpoints are not shown", "start it with --edge http://HOST:PORT"}
	}
	var dialer net.Dialer
	connection, err := dialer.DialContext(ctx, "tcp", u.Host)
	if err != nil {
		return check{"edge", checkBroken, "apps cannot be reached: " + err.Error(), "see whether the edge runs, and its log"}
	}
	connection.Close()
	return check{"edge", checkOK, "apps are reached through " + s.cfg.Edge, ""}
}

// lowSpace is how much free disk is too little, in bytes.
const lowSpace = 2 << 30

func (s *Service) checkSpace(context.Context) check {
	var fs syscall.Statfs_t
	if err := syscall.Statfs(s.cfg.Data, &fs); err != nil {
		return check{"repositories", checkBroken, err.Error(), "see whether the data folder is there"}
	}
	free := int64(fs.Bavail) * int64(fs.Bsize)
	detail := fmt.Sprintf("%d MiB are free in %s", free>>20, s.cfg.Data)
	if free < lowSpace {
		return check{"repositories", checkWarning, detail, "free some, or move the data folder: pushes fail when it is full"}
	}
	return check{"repositories", checkOK, detail, ""}
}

func (s *Service) checkPolicy(context.Context) check {
	own, newest := s.rt.Platform.Policy.Digest(), s.fold().CurrentPolicy()
	if newest.Digest != own {
		return check{"policy", checkWarning, fmt.Sprintf("the ledger's newest policy is %s (no. %d), this gateway's file says %s",
			shortDigest(newest.Digest), newest.Serial, shortDigest(own)), "restart the gateway: it publishes its policy when it starts"}
	}
	return check{"policy", checkOK, fmt.Sprintf("%s, no. %d", shortDigest(own), newest.Serial), ""}
}

// checkBuilds says which limits hold for builds, and whose engine they share.
func (s *Service) checkBuilds(context.Context) check {
	engines := s.rt.Platform.Engines
	var shared []string
	for env, engine := range engines.Environments {
		if engine.Host == engines.Build.Host {
			shared = append(shared, string(env))
		}
	}
	switch {
	case len(shared) > 0:
		return check{"builds", checkWarning, fmt.Sprintf("builds run on the same engine as %s: only their time is limited, and a build can disturb what runs there",
			strings.Join(shared, ", ")), "give builds an engine of their own: engines.build in platform.yaml"}
	case !engines.Build.Dedicated:
		return check{"builds", checkWarning, "only the time of builds is limited: their engine is not marked as theirs alone", "set engines.build.dedicated: true in platform.yaml if nothing else runs on it"}
	}
	return check{"builds", checkOK, "builds have an engine of their own", ""}
}

func (s *Service) checkPushes(context.Context) check {
	if waiting := s.journal.waiting(); len(waiting) > 0 {
		return check{"pushes", checkBroken, fmt.Sprintf("%d branches hold pushes that are not recorded yet", len(waiting)), "they are tried again every " + retryPause.String() + "; see the gateway's log"}
	}
	return check{"pushes", checkOK, "every push that was taken in is recorded", ""}
}

// checkAlarms says where somebody else may hold what was handed over for a service or a container alone.
func (s *Service) checkAlarms(context.Context) check {
	standing := s.alarms()
	if len(standing) == 0 {
		return check{"alarms", checkOK, "no alarm stands", ""}
	}
	var what, do []string
	for _, a := range standing {
		what = append(what, "ALARM: "+a.What+": "+a.Why)
		if !slices.Contains(do, a.Do) {
			do = append(do, a.Do)
		}
	}
	return check{"alarms", checkBroken, strings.Join(what, "; "), strings.Join(do, "; ")}
}

func (s *Service) checkFollowed(context.Context) check {
	var troubles []string
	for _, app := range s.fold().Apps() {
		if trouble := s.polling.trouble(app.Name); trouble != "" {
			troubles = append(troubles, string(app.Name)+": "+trouble)
		}
	}
	if len(troubles) > 0 {
		return check{"followed repositories", checkWarning, strings.Join(troubles, "; "), "mend what it says; they are looked at again by themselves"}
	}
	return check{"followed repositories", checkOK, "all can be read", ""}
}
