package ledger

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"towpath.dev/events"
	"towpath.dev/pkg/pause"
)

// LogKey names the output of one attempt at a stage.
type LogKey struct {
	Service string // the writer's own identity
	App     events.Slug
	Run     int
	Env     events.Slug // empty for build and vet
	Stage   string      // "build", "verify", "release"
	Attempt int         // 1 and up
}

func (k LogKey) subject() (string, error) {
	s := events.Subject{
		Epoch: 1, Writer: events.Writer(k.Service), App: k.App, Run: k.Run, Env: k.Env,
		Subject: k.Stage, Predicate: "log", Attempt: k.Attempt,
	}
	if err := s.Validate(); err != nil {
		return "", fmt.Errorf("log of %+v: %w", k, err)
	}
	token := func(s string) string {
		if s == "" {
			return "_"
		}
		return s
	}
	return strings.Join([]string{
		"log", k.Service, token(string(k.App)), strconv.Itoa(k.Run), token(string(k.Env)), k.Stage, strconv.Itoa(k.Attempt),
	}, "."), nil
}

const (
	// logChunk is the most that one message of a log holds, in bytes.
	logChunk = 32 << 10
	// logDelay is how long output waits for more before it is sent.
	logDelay = 100 * time.Millisecond
	// logBuffer is how much output may wait while the bus is slow or away. What comes on top is left
	// out, and the log says how much: output never holds the work up.
	logBuffer = 4 << 20
	// logClose bounds Close.
	logClose = 5 * time.Second
	// headerLogEnd marks the message after which nothing follows.
	headerLogEnd = "Towpath-Log-End"
)

// Log returns a writer for one attempt's output. It does no IO itself: Write copies into a bounded buffer
// that is sent in the background, so it never blocks and never fails. Close sends the rest, marks the
// end, and says what was lost. After a crash the same key continues the same log. What is written must
// have been redacted before.
func (c *Client) Log(key LogKey) io.WriteCloser {
	l := &logWriter{client: c, some: make(chan struct{}, 1), done: make(chan struct{})}
	l.subject, l.err = key.subject()
	if l.err == nil {
		go l.send()
	} else {
		close(l.done)
	}
	return l
}

type logWriter struct {
	client  *Client
	subject string
	some    chan struct{} // there is something to send
	done    chan struct{} // the sender has ended

	mu     sync.Mutex
	buffer []byte
	lost   int  // bytes left out since the last message
	closed bool // nothing more will be written
	err    error
}

// Write takes p over. It always reports success.
func (l *logWriter) Write(p []byte) (int, error) {
	l.mu.Lock()
	room := max(0, min(len(p), logBuffer-len(l.buffer)))
	l.buffer = append(l.buffer, p[:room]...)
	l.lost += len(p) - room
	l.mu.Unlock()
	l.nudge()
	return len(p), nil
}

func (l *logWriter) nudge() {
	select {
	case l.some <- struct{}{}:
	default:
	}
}

// Close sends what is left and marks the log's end, for at most 5 s. The error says what was lost.
func (l *logWriter) Close() error {
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	l.nudge()
	select {
	case <-l.done:
	case <-time.After(logClose):
		return fmt.Errorf("log %s: the bus did not take the rest within %s", l.subject, logClose)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}

// send moves the buffer to the bus, one message at a time so that order is kept, until the log is
// closed and empty.
func (l *logWriter) send() {
	defer close(l.done)
	for {
		<-l.some
		for {
			chunk, end := l.take()
			if len(chunk) == 0 && !end {
				break
			}
			if err := l.store(chunk, end); err != nil {
				l.mu.Lock()
				l.err = errors.Join(l.err, fmt.Errorf("log %s: %d bytes lost: %w", l.subject, len(chunk), err))
				l.mu.Unlock()
			}
			if end {
				return
			}
		}
		select { // let a burst of small writes become one message
		case <-time.After(logDelay):
		case <-l.client.closed:
			return
		}
	}
}

// take returns the next chunk, whole lines where it can, and whether it is the last.
func (l *logWriter) take() (chunk []byte, end bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.lost > 0 && len(l.buffer) < logBuffer/2 {
		l.buffer = fmt.Appendf(l.buffer, "\n… %d bytes of output left out: the bus was too slow …\n", l.lost)
		l.lost = 0
	}
	n := min(len(l.buffer), logChunk)
	chunk = append(chunk, l.buffer[:n]...)
	l.buffer = l.buffer[n:]
	return chunk, l.closed && len(l.buffer) == 0 && l.lost == 0
}

func (l *logWriter) store(chunk []byte, end bool) error {
	m := nats.NewMsg(l.subject)
	m.Data = chunk
	if end {
		m.Header[headerLogEnd] = []string{"1"}
	}
	var err error
	for try := range 3 {
		if _, err = l.client.publish(context.Background(), m); err == nil || errors.Is(err, nats.ErrConnectionClosed) {
			return err
		}
		if try < 2 {
			_ = pause.For(context.Background(), logDelay<<(2*try))
		}
	}
	return err
}

// ReadLog copies a log to w. With follow it goes on with what is written until the log's end, ctx's end
// (its error), or w's error; without, it returns at the end of what is there. A log that does not exist
// (yet) is empty. A chunk that was sent twice after a lost acknowledgement appears twice.
func (c *Client) ReadLog(ctx context.Context, key LogKey, follow bool, w io.Writer) error {
	subject, err := key.subject()
	if err != nil {
		return err
	}
	live := make(chan *nats.Msg, 64) // only a sign that there is more
	if follow {
		sub, err := c.conn.ChanSubscribe("live."+subject, live)
		if err != nil {
			return fmt.Errorf("reading %s: %w", subject, err)
		}
		defer sub.Unsubscribe()
	}
	var after uint64
	ticker := time.NewTicker(lookEvery)
	defer ticker.Stop()
	for {
		end, err := c.copyLog(ctx, subject, &after, w)
		if err != nil || end || !follow {
			return err
		}
		select {
		case <-live:
		case <-ticker.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-c.closed:
			return fmt.Errorf("reading %s: %w", subject, nats.ErrConnectionClosed)
		}
	}
}

// copyLog copies the chunks after a sequence. end: the log's end was among them.
func (c *Client) copyLog(ctx context.Context, subject string, after *uint64, w io.Writer) (end bool, err error) {
	for more := true; more; {
		more, err = c.batch(ctx, events.LogStream, directGet{Seq: *after + 1, Next: subject}, func(s stored) error {
			*after = s.seq
			end = lastValue(s.header, headerLogEnd) != ""
			_, err := w.Write(s.body)
			return err
		})
		if err != nil {
			return false, fmt.Errorf("reading %s: %w", subject, err)
		}
	}
	return end, nil
}
