package ledger

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"towpath.dev/pkg/seal"
)

// cosigner asks a witness (C2SP tlog-witness) to cosign checkpoints.
type cosigner struct {
	url  string
	key  seal.Witness
	http *http.Client
}

// witnessTimeout bounds one request to the witness.
const witnessTimeout = 5 * time.Second

func newCosigner(url string, key seal.Witness) *cosigner {
	return &cosigner{strings.TrimRight(url, "/"), key, &http.Client{Timeout: witnessTimeout}}
}

// sign returns the note with the witness's line. known is the size that the witness saw last, as far as
// this process can tell; where the witness knows another, it says so and is asked once more.
func (c *cosigner) sign(ctx context.Context, tree *seal.Tree, head seal.Checkpoint, text string, known uint64) (string, error) {
	for range 2 {
		answer, status, err := c.add(ctx, tree, head, text, known)
		if err != nil {
			return "", err
		}
		switch status {
		case http.StatusOK:
			return text + answer, nil
		case http.StatusConflict:
			seen, err := strconv.ParseUint(strings.TrimSpace(answer), 10, 62)
			if err != nil {
				return "", fmt.Errorf("the witness %s answers %.200q", c.url, answer)
			}
			if seen > head.Size {
				return "", fmt.Errorf("the witness %s saw %d events, this ledger has %d: it was rolled back, or it is another", c.url, seen, head.Size)
			}
			known = seen
		case http.StatusUnprocessableEntity:
			return "", fmt.Errorf("the witness %s refuses: what it saw of this ledger at %d events is not what the ledger holds now: %.200s", c.url, known, answer)
		default:
			return "", fmt.Errorf("the witness %s answers %d: %.200s", c.url, status, answer)
		}
	}
	return "", fmt.Errorf("the witness %s changes its mind about what it saw", c.url)
}

// add is one request: the size that is known, the proof from there, and the checkpoint.
func (c *cosigner) add(ctx context.Context, tree *seal.Tree, head seal.Checkpoint, text string, known uint64) (answer string, status int, err error) {
	if known > head.Size {
		known = 0
	}
	var body bytes.Buffer
	fmt.Fprintf(&body, "old %d\n", known)
	if known > 0 {
		proof, err := tlog.ProveTree(int64(head.Size), int64(known), tree)
		if err != nil {
			return "", 0, fmt.Errorf("proving that %d events extend %d: %w", head.Size, known, err)
		}
		for _, h := range proof {
			fmt.Fprintln(&body, base64.StdEncoding.EncodeToString(h[:]))
		}
	}
	body.WriteString("\n" + text)
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url+"/add-checkpoint", &body)
	if err != nil {
		return "", 0, err
	}
	response, err := c.http.Do(request)
	if err != nil {
		return "", 0, fmt.Errorf("asking the witness: %w", err)
	}
	defer response.Body.Close()
	data, err := io.ReadAll(io.LimitReader(response.Body, 16<<10))
	if err != nil {
		return "", 0, fmt.Errorf("asking the witness %s: %w", c.url, err)
	}
	return string(data), response.StatusCode, nil
}
