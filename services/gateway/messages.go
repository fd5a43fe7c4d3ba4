package gateway

import (
	"context"
	"maps"
	"net/http"
	"slices"
	"sync"

	"towpath.dev/events"
	"towpath.dev/pkg/ledger"
	"towpath.dev/pkg/ledger/fold"
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

func doMessages(c *call) error {
	writeJSON(c.w, http.StatusOK, view.Messages(c.s.fold().Apps(), c.s.noted.all()))
	return nil
}

// show is a run as people see it.
func (s *Service) show(app *fold.App, run *fold.Run, url string) view.Run {
	return view.NewRun(app, run, url).Retried(run, s.noted.all())
}
