package backup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"path/filepath"
	"strings"
	"time"

	"towpath.dev/pkg/identity"
	"towpath.dev/pkg/ledger"
	"towpath.dev/pkg/policy"
	"towpath.dev/pkg/seal"
)

// OlderError says that a checkpoint knows of more events than a backup holds.
type OlderError struct {
	Against     string
	Has, Sealed uint64
}

func (e *OlderError) Error() string {
	return fmt.Sprintf("%s, the backup has %d: the last %d would be lost", e.Against, e.Has, e.Sealed-e.Has)
}

// UncomparedError says that there is nothing to hold a backup against, so that nobody can tell what came after it.
type UncomparedError struct{ Why string }

func (e *UncomparedError) Error() string {
	return e.Why + ": nobody can tell whether anything came after this backup"
}

// ErrOtherHistory is wrapped where a checkpoint was signed over other events than those that a backup holds.
var ErrOtherHistory = errors.New("the checkpoint was signed over other events than the backup holds")

// compare holds the ledger that came back against the newest checkpoint that somebody else has.
func (r *restorer) compare(ctx context.Context, c *ledger.Client, ledgerID string, done *Restored) error {
	newest, against, err := r.newest(ctx, c.Trust())
	var uncompared *UncomparedError
	if errors.As(err, &uncompared) && r.Force {
		return nil
	}
	if err != nil {
		return err
	}
	if origin := seal.Origin(ledgerID, c.Epoch()); newest.Origin != origin {
		return fmt.Errorf("%w: it is of %.200s, the backup is of %s", ErrOtherHistory, newest.Origin, origin)
	}
	done.Against = fmt.Sprintf("%s %d events", against, newest.Size)
	if newest.Size <= done.Events {
		return sameHistory(ctx, c, newest)
	}
	if !r.Force {
		return &OlderError{done.Against, done.Events, newest.Size}
	}
	done.Older = newest.Size - done.Events
	return nil
}

// sameHistory makes sure that the ledger's first events are those that a checkpoint was signed over.
func sameHistory(ctx context.Context, c *ledger.Client, signed seal.Signed) error {
	tree, err := seal.OpenTree("")
	if err != nil {
		return err
	}
	defer tree.Close()
	if _, err := c.ReadStored(ctx, 0, func(m ledger.Stored) error { return tree.Append(seal.LeafOf(m)) }); err != nil {
		return err
	}
	root, err := tree.Root(signed.Size)
	if err == nil && root != signed.Root {
		err = fmt.Errorf("%w: its first %d are not those that were sealed", ErrOtherHistory, signed.Size)
	}
	return err
}

// newest returns the checkpoint that was given, or the witness's last one, and says which it is.
func (r *restorer) newest(ctx context.Context, trust *identity.Trust) (s seal.Signed, against string, err error) {
	w := r.Witness
	if w == (policy.Witness{}) {
		if w, err = r.configured(); err != nil && r.Checkpoint == "" {
			return s, "", err
		}
	}
	var keys []seal.Witness
	if w.Key != "" {
		key, err := seal.ParseWitness(w.Key)
		if err != nil {
			return s, "", err
		}
		keys = append(keys, key)
	}
	switch {
	case r.Checkpoint != "":
		s, err = cosigned(r.Checkpoint, trust, keys)
		if err != nil {
			return s, "", fmt.Errorf("the checkpoint that was kept: %w", err)
		}
		return s, "the checkpoint that was kept was signed over", nil
	case w.URL == "":
		return s, "", &UncomparedError{"no checkpoint was given, and no witness is known"}
	case len(keys) == 0:
		return s, "", &UncomparedError{"the key of the witness " + w.URL + " is not known"}
	}
	text, err := ask(ctx, w.URL)
	if err != nil {
		return s, "", &UncomparedError{fmt.Sprintf("asking the witness %s: %v", w.URL, err)}
	}
	if s, err = cosigned(text, trust, keys); err != nil {
		return s, "", fmt.Errorf("what the witness %s cosigned last: %w", w.URL, err)
	}
	return s, fmt.Sprintf("the witness %s cosigned", keys[0].Name), nil
}

// configured is the witness that platform.yaml in the backup names; none where there is no such file.
func (r *restorer) configured() (policy.Witness, error) {
	p, err := policy.Load(filepath.Join(r.folder, policy.FileName))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return policy.Witness{}, nil
	case err != nil:
		return policy.Witness{}, &UncomparedError{"platform.yaml in the backup, which may name a witness: " + err.Error()}
	}
	return p.Witness, nil
}

// cosigned opens a checkpoint. Where the witness's key is known it has to have cosigned; a signature that nobody here can
// check is refused, since what it is worth is not known.
func cosigned(text string, trust *identity.Trust, keys []seal.Witness) (seal.Signed, error) {
	s, err := seal.Open(text, trust, keys...)
	switch {
	case err != nil:
		return s, err
	case len(keys) > 0 && len(s.Cosignatures) == 0:
		return s, fmt.Errorf("%w: the witness %s did not cosign it", seal.ErrCheckpoint, keys[0])
	case len(s.Unknown) > 0:
		return s, fmt.Errorf("%w: it bears a signature by %q, whose key is not known: give it with --witness-key", seal.ErrCheckpoint, s.Unknown)
	}
	return s, nil
}

// Bounds of the question to a witness.
const (
	askTimeout = 10 * time.Second
	maxNote    = 64 << 10
)

// ask returns the last checkpoint that a witness cosigned.
func ask(ctx context.Context, url string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimRight(url, "/")+"/checkpoint", nil)
	if err != nil {
		return "", err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(io.LimitReader(response.Body, maxNote))
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("it answers %s: %.200s", response.Status, strings.TrimSpace(string(text)))
	}
	return string(text), err
}
