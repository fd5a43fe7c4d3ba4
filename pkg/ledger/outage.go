package ledger

import (
	"context"
	"errors"
	"sync/atomic"
)

// ErrBusLost ends a wait for an answer that cannot come: the connection over which it was asked for is gone.
var ErrBusLost = errors.New("the connection to the bus broke before the answer came")

// outage tells those who wait for an answer when the connection breaks.
type outage struct{ now atomic.Pointer[connected] }

// connected lasts until the connection breaks.
type connected struct {
	ctx   context.Context
	broke context.CancelCauseFunc
}

func newConnected() *connected {
	ctx, broke := context.WithCancelCause(context.Background())
	return &connected{ctx, broke}
}

func newOutage() *outage {
	o := &outage{}
	o.now.Store(newConnected())
	return o
}

// begin ends every wait that is under way.
func (o *outage) begin() { o.now.Swap(newConnected()).broke(ErrBusLost) }

// during returns a context that ends with ctx, or with ErrBusLost when the connection breaks.
func (o *outage) during(ctx context.Context) (context.Context, context.CancelFunc) {
	link := o.now.Load()
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(link.ctx, func() { cancel(ErrBusLost) })
	return ctx, func() {
		stop()
		cancel(nil)
	}
}

// because puts the reason for which a context ended in the place of "context canceled".
func because(ctx context.Context, err error) error {
	if errors.Is(err, context.Canceled) && errors.Is(context.Cause(ctx), ErrBusLost) {
		return ErrBusLost
	}
	return err
}
