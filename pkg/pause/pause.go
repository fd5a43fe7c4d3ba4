// Package pause waits as long as somebody wants the answer, and no longer.
package pause

import (
	"context"
	"time"
)

// For waits for d and returns nil, or returns the cause with which ctx ended before.
func For(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
