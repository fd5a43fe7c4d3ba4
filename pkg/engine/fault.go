package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/client"
)

var (
	// ErrNotFound is wrapped where the container, image or network does not exist.
	ErrNotFound = errors.New("not found")
	// ErrNameTaken is wrapped by Create where another container has the name.
	ErrNameTaken = errors.New("the name is taken")
	// ErrPortTaken is wrapped by Start where the host port is in use.
	ErrPortTaken = errors.New("the host port is taken")
	// ErrNoPlatform is wrapped by Pull where the image has nothing for the engine's platform.
	ErrNoPlatform = errors.New("the image has nothing for this platform")
	// ErrNoSource is wrapped by Create where the engine does not see a folder to be mounted: its machine
	// is another one, or it runs where this process's folders are not.
	ErrNoSource = errors.New("the engine does not see the folder")
)

// UnreachableError says that an engine did not answer in time or at all. Nothing is known about the
// effect of the call.
type UnreachableError struct {
	Host  string        // the engine's URL
	Doing string        // the call, for example "starting container x"
	Bound time.Duration // how long it was waited for; 0 when the connection failed
	Err   error
}

func (u *UnreachableError) Error() string {
	why := u.Err.Error()
	if u.Bound > 0 && errors.Is(u.Err, context.DeadlineExceeded) {
		why = "no answer within " + u.Bound.String()
	} else if strings.HasPrefix(why, "Cannot connect to the Docker daemon") {
		why = "nothing listens there"
	}
	return fmt.Sprintf("%s: the Docker Engine at %s does not answer: %s; %s", u.Doing, u.Host, why, u.advice())
}

func (u *UnreachableError) Unwrap() error { return u.Err }

func (u *UnreachableError) advice() string {
	switch {
	case errors.Is(u.Err, syscall.EACCES):
		return "let this user reach the socket (usermod -aG docker USER), or run as root"
	case errors.Is(u.Err, exec.ErrNotFound):
		return "install an ssh client (apt-get install openssh-client)"
	case strings.HasPrefix(u.Host, "ssh://"):
		return "check that `" + "ssh " + strings.TrimPrefix(u.Host, "ssh://") + " docker version` works without a question"
	case strings.HasPrefix(u.Host, "tcp://"):
		return "check the address, the certificates and that the engine listens there"
	default:
		return "start it (systemctl start docker), or correct the engine's host in the platform's configuration"
	}
}

// IsUnreachable reports whether err says that an engine did not answer, so that the same call may be
// worth another try later.
func IsUnreachable(err error) bool {
	var u *UnreachableError
	return errors.As(err, &u)
}

// do runs one call to the engine within bound and puts its error into this package's terms. doing is
// what the error begins with.
func (e *Engine) do(ctx context.Context, bound time.Duration, doing string, call func(context.Context) error) error {
	limited, cancel := context.WithTimeout(ctx, bound)
	defer cancel()
	return e.fault(ctx, bound, doing, call(limited))
}

func (e *Engine) fault(ctx context.Context, bound time.Duration, doing string, err error) error {
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return fmt.Errorf("%s: %w", doing, context.Cause(ctx))
	case unreachable(err):
		return &UnreachableError{Host: e.host.URL, Doing: doing, Bound: bound, Err: err}
	case taken(err):
		return fmt.Errorf("%s: %w: %w", doing, ErrPortTaken, err)
	case strings.Contains(err.Error(), "bind source path does not exist"):
		return fmt.Errorf("%s: %w: %w", doing, ErrNoSource, err)
	case errdefs.IsNotFound(err):
		return fmt.Errorf("%s: %w: %w", doing, ErrNotFound, err)
	}
	return fmt.Errorf("%s: %w", doing, err)
}

func unreachable(err error) bool {
	var op *net.OpError
	return client.IsErrConnectionFailed(err) || errors.As(err, &op) || errdefs.IsUnavailable(err) ||
		errors.Is(err, context.DeadlineExceeded) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) || errors.Is(err, exec.ErrNotFound)
}

// taken reports the engine's two ways of saying that a host port is in use: by one of its own containers,
// or by another process.
func taken(err error) bool {
	text := err.Error()
	return strings.Contains(text, "port is already allocated") || strings.Contains(text, "address already in use")
}
