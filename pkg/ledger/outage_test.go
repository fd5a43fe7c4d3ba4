package ledger_test

import (
	"context"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"towpath.dev/pkg/ledger"
	"towpath.dev/pkg/ledger/ledgertest"
)

// lines passes on the error of each line that is logged.
type lines chan string

func (l lines) Write(line []byte) (int, error) {
	select {
	case l <- string(line):
	default: // nobody waits for that many
	}
	return len(line), nil
}

// A question that is under way when the bus goes is over then, and not when its time is: whoever asks again at once
// finds the bus as soon as it is back.
func TestABrokenConnectionEndsWhatWaitsForAnAnswer(t *testing.T) {
	l := ledgertest.Start(t)
	l.CloseDoor()
	asked := make(chan *nats.Msg, 16) // and here nobody answers
	silent, err := l.Client("ledger").Conn().ChanSubscribe("append.>", asked)
	if err != nil {
		t.Fatal(err)
	}
	logged := make(lines, 1000)
	o := l.Options("gateway")
	o.Logger = slog.New(slog.NewTextHandler(logged, &slog.HandlerOptions{Level: slog.LevelDebug}))
	c, err := ledger.Connect(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		subject, event := ledgertest.AppCreated("hello")
		_, err := c.Append(ctx, subject, event)
		done <- err
	}()
	timeout := time.After(30 * time.Second)
	await := func(words string) {
		t.Helper()
		for {
			select {
			case line := <-logged:
				if strings.Contains(line, words) {
					return
				}
			case <-timeout:
				t.Fatalf("%q was never logged", words)
			}
		}
	}
	select {
	case <-asked:
	case <-timeout:
		t.Fatal("nothing was asked")
	}
	l.Stop()
	await("broke before the answer came")
	if err := silent.Unsubscribe(); err != nil {
		t.Fatal(err)
	}
	l.Restart()
	l.OpenDoor()
	if err := <-done; err != nil {
		t.Error(err)
	}
	cancel()
}
