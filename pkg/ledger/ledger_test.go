package ledger_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"towpath.dev/events"
	"towpath.dev/pkg/ledger"
	"towpath.dev/pkg/ledger/ledgertest"
)

func appCreated(app string) (events.Subject, events.Event) {
	body := &events.AppCreated{About: events.About{ID: app}, Actor: "actor-1"}
	return events.AppSubject(1, events.Slug(app)), events.New(events.Gateway, time.Now(), "", body)
}

func TestAppendIsFollowedAndWrittenOnce(t *testing.T) {
	l := ledgertest.Start(t)
	gateway, build := l.Client("gateway"), l.Client("build")
	seen := make(chan ledger.Record, 10)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- build.Follow(ctx, func(r ledger.Record) error { seen <- r; return nil }) }()
	for i := range 3 {
		s, e := appCreated(fmt.Sprintf("app-%d", i))
		r, err := gateway.Append(t.Context(), s, e)
		if err != nil {
			t.Fatal(err)
		}
		got := <-seen
		if got.Seq != r.Seq || got.Event.ID != e.ID {
			t.Fatalf("followed %d %s, appended %d %s", got.Seq, got.Event.ID, r.Seq, e.ID)
		}
	}
	s, e := appCreated("app-1")
	_, err := gateway.Append(t.Context(), s, e)
	var exists *ledger.ExistsError
	if !errors.As(err, &exists) || exists.Winner.Seq != 2 {
		t.Fatalf("second append: %v", err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}
