package view

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"towpath.dev/events"
	"towpath.dev/pkg/ledger"
	"towpath.dev/pkg/ledger/fold"
)

// Message is a message of the ledger that a service has not settled: one that is tried again, or one that
// nobody acts on.
type Message struct {
	State    ledger.NoteState `json:"state"`
	Seq      uint64           `json:"seq"`
	Subject  string           `json:"subject"`
	Type     string           `json:"type,omitempty"` // of a parked event
	Services []string         `json:"services"`       // that met it
	Run      string           `json:"run,omitempty"`
	Since    time.Time        `json:"since"`
	Why      string           `json:"why"`
	Tries    int              `json:"tries,omitempty"`   // that failed
	Allowed  int              `json:"allowed,omitempty"` // after which its stage is stuck
	Next     *time.Time       `json:"next,omitempty"`    // try
	Do       string           `json:"do,omitempty"`
	// Dismissed says that an operator has looked into it.
	Dismissed bool `json:"dismissed,omitempty"`
}

// Dismissable reports whether nothing but a person takes the message off the list.
func (m Message) Dismissable() bool { return m.State == ledger.SetAside || m.State == ledger.Halted }

// Parked reports whether it takes a newer build to read the message.
func (m Message) Parked() bool { return m.State == ledger.Parked }

// Messages joins what services noted about messages, the oldest first.
func Messages(apps []*fold.App, notes []ledger.Note) []Message {
	list := []Message{}
	slices.SortFunc(notes, func(a, b ledger.Note) int {
		return cmp.Or(cmp.Compare(a.Seq, b.Seq), cmp.Compare(a.Service, b.Service), cmp.Compare(a.Durable, b.Durable))
	})
	for _, n := range notes {
		if n.State == ledger.Retrying && over(apps, notes, n) {
			continue
		}
		i := slices.IndexFunc(list, func(m Message) bool {
			return n.State != ledger.Retrying && m.Seq == n.Seq && m.State == n.State
		})
		if i < 0 {
			list = append(list, message(apps, n))
			continue
		}
		m := &list[i]
		if !slices.Contains(m.Services, string(n.Service)) {
			m.Services = append(m.Services, string(n.Service))
		}
		if n.First.Before(m.Since) {
			m.Since = n.First
		}
	}
	slices.SortStableFunc(list, func(a, b Message) int { return a.Since.Compare(b.Since) })
	return list
}

// over reports whether what was tried is not tried any more, though its worker did not live to say so: its run has
// ended, or is stuck, or the bus no longer delivers the message.
func over(apps []*fold.App, notes []ledger.Note, n ledger.Note) bool {
	if run := concerned(apps, n); run != nil && run.Status().Ended() {
		return true
	}
	return slices.ContainsFunc(notes, func(o ledger.Note) bool {
		return o.State == ledger.Halted && o.Seq == n.Seq && o.Durable == n.Durable
	})
}

func message(apps []*fold.App, n ledger.Note) Message {
	m := Message{
		State: n.State, Seq: n.Seq, Subject: n.Subject, Type: n.Type, Services: []string{string(n.Service)},
		Since: n.First, Why: n.Why,
	}
	switch n.State {
	case ledger.Retrying:
		m.Tries, m.Allowed, m.Next = n.Failed, n.Allowed, moment(n.Next)
	case ledger.Parked:
		m.Do = "upgrade Towpath to read it; it is kept, and taken up then"
	case ledger.SetAside:
		m.Do = "nothing acts on it, and the ledger keeps it: find out who wrote it, then " + dismiss(n)
	case ledger.Halted:
		m.Do = fmt.Sprintf("see the log of %s and mend the cause, then %s", n.Durable, dismiss(n))
	}
	if run := concerned(apps, n); run != nil {
		m.Run = run.Name()
	}
	return m
}

// dismiss is the command that takes a message off the list.
func dismiss(n ledger.Note) string { return fmt.Sprintf("towpath dismiss %d --reason TEXT", n.Seq) }

// concerned returns the run that a note names, or nil.
func concerned(apps []*fold.App, n ledger.Note) *fold.Run {
	for _, a := range apps {
		switch {
		case a.Name != n.App:
		case a.Run(n.Run) != nil:
			return a.Run(n.Run)
		case n.Event != "":
			return a.StartedBy(n.Event)
		}
	}
	return nil
}

// concerns reports whether a note names a run.
func concerns(n ledger.Note, run *fold.Run) bool {
	return n.App == run.App && (n.Run == run.N || n.Event != "" && n.Event == run.StartEvent)
}

// Retried adds to a run what is tried again by itself at present: which stage, how often, and why.
func (v Run) Retried(run *fold.Run, notes []ledger.Note) Run {
	if run.Status().Ended() {
		return v
	}
	v.Stages = slices.Clone(v.Stages)
	for _, n := range notes {
		if n.State != ledger.Retrying || n.App != run.App || n.Why == "" {
			continue
		}
		s := v.tried(run, n)
		if s == nil {
			continue
		}
		s.Tries, s.Next = n.Failed, moment(n.Next)
		if s.Status == fold.Pending {
			s.Status = fold.Queued
		}
		s.Detail = fmt.Sprintf("try %d of %d failed, and it is tried again by itself: %s", n.Failed, n.Allowed, n.Why)
		if n.Failed == 0 {
			s.Detail = "it is tried again by itself: " + n.Why
		}
		if v.Detail == "" && (v.Status == fold.Queued || v.Status == fold.Running) {
			v.Detail = s.Detail
		}
	}
	return v
}

// tried returns the stage that a note is about, or nil: the first of the note's service that has not ended.
func (v Run) tried(run *fold.Run, n ledger.Note) *Stage {
	for i := range v.Stages {
		s := &v.Stages[i]
		if s.Stage != string(n.Service) || n.Env != "" && s.Env != string(n.Env) {
			continue
		}
		switch s.Status {
		case fold.Pending, fold.Queued, fold.Running:
			if concerns(n, run) || n.Run == 0 && n.Env != "" && underWay(run, n.Env) {
				return s
			}
		}
		if s.Status != fold.Done && s.Status != fold.Skipped {
			return nil
		}
	}
	return nil
}

// underWay reports whether it is an environment's turn in a run, and something has begun there.
func underWay(run *fold.Run, env events.Slug) bool {
	next := run.Next()
	return next != nil && next.Name == env && (next.Slot > 0 || next.Promote.Status != fold.Pending)
}
