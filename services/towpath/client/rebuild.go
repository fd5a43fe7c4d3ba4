package client

import (
	"bufio"
	"context"
	"encoding/json"
	"net/http"
	"time"
)

// Proof is a state that was come to in one way.
type Proof struct {
	After  uint64        `json:"after,omitempty"` // the sequence after which the ledger was read
	Bytes  int           `json:"bytes"`
	SHA256 string        `json:"sha256"`
	Took   time.Duration `json:"took"`
}

// Projection is one thing that follows from the ledger, and how it compares with what the ledger gives.
type Projection struct {
	Projection string `json:"projection"` // "fold of build", "traffic"
	Service    string `json:"service,omitempty"`
	Seq        uint64 `json:"seq"`
	Format     string `json:"format,omitempty"`
	Live       Proof  `json:"live"`
	Fresh      Proof  `json:"fresh"`
	Resumed    *Proof `json:"resumed,omitempty"` // nil: there is no snapshot
	Verified   string `json:"verified,omitempty"`
	Difference string `json:"difference,omitempty"` // empty: none
	Rebuilt    bool   `json:"rebuilt,omitempty"`
	Places     int    `json:"places,omitempty"`
	Absent     bool   `json:"absent,omitempty"` // the service does not answer
	Error      string `json:"error,omitempty"`
}

// Rebuild has every projection made anew, or with check only compared, and calls each with one after the other.
func (c *Client) Rebuild(ctx context.Context, check bool, each func(Projection) error) error {
	body := struct {
		Check bool `json:"check,omitempty"`
	}{check}
	answer, err := c.open(ctx, request{method: http.MethodPost, path: []string{"v1", "rebuild"}, body: body})
	if err != nil {
		return err
	}
	defer answer.Close()
	lines := bufio.NewScanner(answer)
	lines.Buffer(nil, maxEventLine)
	for lines.Scan() {
		var p Projection
		if err := json.Unmarshal(lines.Bytes(), &p); err != nil {
			return &Error{What: "reading the gateway's answer", On: c.base, Why: err.Error(), Code: CodeFailed}
		}
		if err := each(p); err != nil {
			return err
		}
	}
	if err := lines.Err(); err != nil {
		return c.unreachable(ctx, err)
	}
	return nil
}
