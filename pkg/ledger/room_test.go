package ledger

import (
	"errors"
	"strings"
	"testing"

	"github.com/nats-io/nats.go/jetstream"
)

func TestNoRoomSaysHowMuch(t *testing.T) {
	full := &jetstream.APIError{Code: 500, ErrorCode: 10047, Description: "insufficient storage resources available"}
	err := roomFor(logStream(), full)
	if !errors.Is(err, full) || !strings.Contains(err.Error(), "1024 MiB") || !strings.Contains(err.Error(), "free space") {
		t.Errorf("got %v", err)
	}
	if other := errors.New("something else"); roomFor(logStream(), other) != other {
		t.Error("another error was changed")
	}
}
