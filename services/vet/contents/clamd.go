package contents

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"strings"
	"time"
)

// Clamd is ClamAV's daemon, which files are streamed to (INSTREAM, see clamd(8)). It is safe for concurrent use.
type Clamd struct{ network, address string }

// ErrClamd is wrapped for everything that keeps clamd from saying what a file is: nothing passes by default.
var ErrClamd = errors.New("clamd did not say what it is")

const (
	clamdDial  = 10 * time.Second
	clamdAlive = 2 * time.Minute // without a byte taken or an answer given
	clamdChunk = 64 << 10
)

// ParseClamd reads unix:///path or tcp://host:port.
func ParseClamd(address string) (*Clamd, error) {
	u, err := url.Parse(address)
	switch {
	case err == nil && u.Scheme == "unix" && u.Host == "" && strings.HasPrefix(u.Path, "/"):
		return &Clamd{"unix", u.Path}, nil
	case err == nil && u.Scheme == "tcp" && u.Port() != "" && u.Path == "" && u.User == nil:
		return &Clamd{"tcp", u.Host}, nil
	}
	return nil, fmt.Errorf("clamd: %q is neither unix:///path nor tcp://host:port", address)
}

// Version is what clamd and its signatures are: "ClamAV 1.0.7/27100".
func (c *Clamd) Version(ctx context.Context) (string, error) {
	answer, err := c.ask(ctx, "VERSION", nil)
	if err != nil {
		return "", err
	}
	if !strings.HasPrefix(answer, "ClamAV ") {
		return "", fmt.Errorf("%w: asked for its version it answered %.100q", ErrClamd, answer)
	}
	parts := strings.SplitN(answer, "/", 3) // the third is the date on which its signatures were made
	return strings.Join(parts[:min(2, len(parts))], "/"), nil
}

// Scan returns the name of the signature that a file has; empty: none. The error wraps ErrClamd, or is ctx's.
func (c *Clamd) Scan(ctx context.Context, file io.Reader) (signature string, err error) {
	answer, err := c.ask(ctx, "INSTREAM", file)
	if err != nil {
		return "", err
	}
	verdict, ok := strings.CutPrefix(answer, "stream: ")
	if ok && verdict == "OK" {
		return "", nil
	}
	if name, found := strings.CutSuffix(verdict, " FOUND"); ok && found && name != "" {
		return name, nil
	}
	return "", fmt.Errorf("%w: it answered %.200q", ErrClamd, answer)
}

// ask sends one command, and the file after it, and returns the answer.
func (c *Clamd) ask(ctx context.Context, command string, file io.Reader) (string, error) {
	dialer := net.Dialer{Timeout: clamdDial}
	conn, err := dialer.DialContext(ctx, c.network, c.address)
	if err != nil {
		return "", c.failed(ctx, err)
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	alive := func() { conn.SetDeadline(time.Now().Add(clamdAlive)) }
	alive()
	if _, err := conn.Write([]byte("z" + command + "\x00")); err != nil {
		return "", c.failed(ctx, err)
	}
	if file != nil {
		if err := stream(conn, file, alive); err != nil {
			return "", c.refused(ctx, conn, err)
		}
	}
	alive()
	answer, err := bufio.NewReaderSize(io.LimitReader(conn, 4<<10), 4<<10).ReadString(0)
	if err != nil {
		return "", c.failed(ctx, err)
	}
	return strings.TrimSuffix(answer, "\x00"), nil
}

// stream sends a file in chunks, each with its length in front, and an empty one at the end.
func stream(to io.Writer, file io.Reader, alive func()) error {
	buffer := make([]byte, 4+clamdChunk)
	for {
		n, err := io.ReadFull(file, buffer[4:])
		if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			return err
		}
		ended := err != nil
		if n > 0 {
			binary.BigEndian.PutUint32(buffer, uint32(n))
			alive()
			if _, err := to.Write(buffer[:4+n]); err != nil {
				return err
			}
		}
		if ended {
			_, err := to.Write([]byte{0, 0, 0, 0})
			return err
		}
	}
}

// refused says why clamd broke a stream off, where it says so: a file that is larger than its StreamMaxLength.
func (c *Clamd) refused(ctx context.Context, conn net.Conn, err error) error {
	conn.SetReadDeadline(time.Now().Add(time.Second))
	answer, _ := io.ReadAll(io.LimitReader(conn, 1<<10))
	if text := strings.Trim(string(answer), "\x00\n"); text != "" {
		return fmt.Errorf("%w: it answered %.200q", ErrClamd, text)
	}
	return c.failed(ctx, err)
}

func (c *Clamd) failed(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return fmt.Errorf("%w (%s %s): %w", ErrClamd, c.network, c.address, err)
}
