package gateway

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"

	"towpath.dev/events"
	"towpath.dev/pkg/ledger"
	"towpath.dev/pkg/ledger/fold"
	"towpath.dev/pkg/settings"
	"towpath.dev/services/gateway/view"
)

// noted is what the services noted about messages that they have not settled.
type noted struct {
	mu    sync.Mutex
	notes map[string]ledger.Note // by bucket and key
}

// set takes a note over; nil: it was dropped.
func (n *noted) set(key string, note *ledger.Note) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if note == nil {
		delete(n.notes, key)
		return
	}
	if n.notes == nil {
		n.notes = map[string]ledger.Note{}
	}
	n.notes[key] = *note
}

func (n *noted) all() []ledger.Note {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Collect(maps.Values(n.notes))
}

// keepNotes follows a bucket of notes until ctx ends.
func (s *Service) keepNotes(ctx context.Context, bucket string) {
	err := s.rt.Ledger.WatchNotes(ctx, bucket, nil, func(key string, note *ledger.Note) { s.noted.set(bucket+"/"+key, note) })
	if err != nil && ctx.Err() == nil {
		s.logger.Error("notes about messages are no longer followed", "bucket", bucket, "err", err)
	}
}

// noteBuckets are where services keep notes.
var noteBuckets = []string{events.BucketTries, events.BucketAside}

// doMessages lists messages that are not settled; with all=1 also those that somebody dismissed.
func doMessages(c *call) error {
	list := c.s.messages()
	if c.r.URL.Query().Get("all") != "1" {
		list = slices.DeleteFunc(list, func(m view.Message) bool { return m.Dismissed })
	}
	writeJSON(c.w, http.StatusOK, list)
	return nil
}

// messages are all messages that services noted something about.
func (s *Service) messages() []view.Message {
	list := view.Messages(s.fold().Apps(), s.noted.all())
	for i, m := range list {
		list[i].Dismissed = m.Dismissable() && s.fold().Dismissed(m.Seq)
	}
	return list
}

// show is a run as people see it.
func (s *Service) show(ctx context.Context, app *fold.App, run *fold.Run, url string) view.Run {
	v := view.NewRun(app, run, url).Retried(run, s.noted.all())
	if v.Finished != nil {
		return v
	}
	for _, look := range s.lookAhead(ctx, run) {
		switch n := len(look.missing); {
		case look.err != nil:
			v.Ahead(string(look.env), "whether it will be blocked cannot be seen now: "+look.err.Error(), "")
		case n == 1:
			v.Ahead(string(look.env), "will be blocked: "+look.missing[0].String(), look.missing[0].Command)
		case n > 1:
			var lines strings.Builder
			fmt.Fprintf(&lines, "will be blocked: %d keys missing", n)
			if slices.ContainsFunc(look.missing, func(m settings.MissingKey) bool { return m.Unfit != "" }) {
				lines.WriteString(", or not to be deployed")
			}
			for _, m := range look.missing {
				what := m.Key
				if m.Unfit != "" {
					what = m.String()
				}
				fmt.Fprintf(&lines, "\n%s → %s", what, m.Command)
			}
			v.Ahead(string(look.env), lines.String(), "")
		}
	}
	return v
}
