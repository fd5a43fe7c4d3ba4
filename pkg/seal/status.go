package seal

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"golang.org/x/mod/sumdb/tlog"

	"towpath.dev/events"
)

// Status is how far the ledger is sealed.
type Status struct {
	Origin string `json:"origin,omitempty"`
	// Serial counts the checkpoints; 0: none yet.
	Serial int `json:"serial"`
	// Size is how many events the newest checkpoint seals: those with sequences 1 to Size.
	Size uint64    `json:"size"`
	Root string    `json:"root,omitempty"` // base64
	At   time.Time `json:"at,omitzero"`    // when it was stored
	// Checkpoint is the signed note.
	Checkpoint string `json:"checkpoint,omitempty"`
	// Head is the last event that is in the tree; those after Size wait for the next checkpoint.
	Head uint64 `json:"head"`
	// Witnessed is the newest checkpoint that the witness cosigned; nil: none.
	Witnessed *WitnessedAt `json:"witnessed,omitempty"`
	// Witness is the key of the witness that is asked; "": none is.
	Witness string `json:"witness,omitempty"`
	// Trouble says why the witness did not sign the last time.
	Trouble string `json:"trouble,omitempty"`
	// Alarm says why nothing is sealed any more: what is stored is not what was sealed.
	Alarm string `json:"alarm,omitempty"`
	// Checked is when the whole ledger was last compared with the tree, and up to which event.
	Checked   time.Time `json:"checked,omitzero"`
	CheckedTo uint64    `json:"checkedTo,omitempty"`
}

// WitnessedAt is a checkpoint with its cosignature.
type WitnessedAt struct {
	Cosignature
	Size       uint64 `json:"size"`
	Checkpoint string `json:"checkpoint"`
}

// Question and Answer are the messages of a request to the ledger service.
type (
	Question struct {
		Indexes []int64 `json:"indexes,omitempty"` // of stored hashes
		Reason  string  `json:"reason,omitempty"`  // why an alarm is ended
	}
	Answer struct {
		Status *Status  `json:"status,omitempty"`
		Hashes [][]byte `json:"hashes,omitempty"`
		Error  string   `json:"error,omitempty"`
	}
)

// MaxIndexes is how many hashes one question may ask for.
const MaxIndexes = 4096

// askTimeout bounds one question; sealing what is new may wait for the disk and for the witness.
const askTimeout = 15 * time.Second

// ErrAlarm is wrapped where sealing has stopped because the ledger is not what was sealed.
var ErrAlarm = errors.New("the ledger is not what was sealed")

func ask(ctx context.Context, conn *nats.Conn, subject string, q Question) (Answer, error) {
	wrap := func(err error) (Answer, error) {
		return Answer{}, fmt.Errorf("asking the ledger service about the sealed log: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	payload, err := json.Marshal(q)
	if err != nil {
		return wrap(err)
	}
	m, err := conn.RequestWithContext(ctx, subject, payload)
	if err != nil {
		return wrap(err)
	}
	var a Answer
	if err := json.Unmarshal(m.Data, &a); err != nil {
		return wrap(err)
	}
	if a.Error != "" {
		return wrap(errors.New(a.Error))
	}
	return a, nil
}

// Ask returns how far the ledger is sealed.
func Ask(ctx context.Context, conn *nats.Conn) (Status, error) {
	return status(ctx, conn, events.SealStatusSubject)
}

// Now has the ledger service seal what is new, and returns how far it is sealed then. The error wraps
// ErrAlarm where sealing has stopped.
func Now(ctx context.Context, conn *nats.Conn) (Status, error) {
	s, err := status(ctx, conn, events.SealNowSubject)
	if err == nil && s.Alarm != "" {
		err = fmt.Errorf("%w: %s", ErrAlarm, s.Alarm)
	}
	return s, err
}

// EndAlarm has the ledger service put aside what it sealed before, record that somebody ended the alarm, and seal on over
// what is stored. The status is that of before; whether another alarm follows, Now tells. Only the operator may ask.
func EndAlarm(ctx context.Context, conn *nats.Conn, reason string) (Status, error) {
	return statusOf(ctx, conn, events.SealResumeSubject, Question{Reason: reason})
}

func status(ctx context.Context, conn *nats.Conn, subject string) (Status, error) {
	return statusOf(ctx, conn, subject, Question{})
}

func statusOf(ctx context.Context, conn *nats.Conn, subject string, q Question) (Status, error) {
	a, err := ask(ctx, conn, subject, q)
	if err == nil && a.Status == nil {
		err = errors.New("the ledger service gave no status")
	}
	if err != nil {
		return Status{}, err
	}
	return *a.Status, nil
}

// Hashes reads the tree's hashes from the ledger service; every proof is made of them.
func Hashes(ctx context.Context, conn *nats.Conn) tlog.HashReader {
	return tlog.HashReaderFunc(func(indexes []int64) ([]Hash, error) {
		var all []Hash
		for len(indexes) > 0 {
			some := indexes[:min(len(indexes), MaxIndexes)]
			indexes = indexes[len(some):]
			a, err := ask(ctx, conn, events.SealHashesSubject, Question{Indexes: some})
			if err != nil {
				return nil, err
			}
			if len(a.Hashes) != len(some) {
				return nil, fmt.Errorf("the ledger service gave %d hashes of %d", len(a.Hashes), len(some))
			}
			for _, h := range a.Hashes {
				if len(h) != tlog.HashSize {
					return nil, fmt.Errorf("the ledger service gave a hash of %d bytes", len(h))
				}
				all = append(all, Hash(h))
			}
		}
		return all, nil
	})
}
