package faults

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"
)

// passed is one line that a program with kill points has written: a boundary that it reached.
type passed struct {
	at       time.Time
	pid      int
	killed   bool // it died there
	service  string
	boundary string
	app      string
}

// trail reads what the programs passed, as it grows.
type trail struct {
	file *os.File
	rest string
	all  []passed
}

func openTrail(name string) (*trail, error) {
	file, err := os.OpenFile(name, os.O_RDONLY|os.O_CREATE, 0o600)
	return &trail{file: file}, err
}

func (t *trail) close() { t.file.Close() }

// read takes up the lines that came since the last call.
func (t *trail) read() error {
	text, err := io.ReadAll(t.file)
	if err != nil {
		return err
	}
	lines := bufio.NewReader(strings.NewReader(t.rest + string(text)))
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			t.rest = line
			return nil
		}
		p, err := parsePassed(line)
		if err != nil {
			return err
		}
		t.all = append(t.all, p)
	}
}

func parsePassed(line string) (passed, error) {
	var p passed
	var nanoseconds int64
	var what string
	f := strings.Split(strings.TrimRight(line, "\n"), " ")
	if len(f) != 6 {
		return p, fmt.Errorf("%q is no line of a trail", line)
	}
	if _, err := fmt.Sscan(strings.Join(f[:3], " "), &nanoseconds, &p.pid, &what); err != nil {
		return p, fmt.Errorf("%q is no line of a trail: %w", line, err)
	}
	p.at, p.killed, p.service, p.boundary, p.app = time.Unix(0, nanoseconds), what == "killed", f[3], f[4], f[5]
	return p, nil
}

// killedAt returns the boundary at which a process died, if it died at one.
func (t *trail) killedAt(pid int) (passed, bool) {
	for _, p := range slices.Backward(t.all) {
		if p.pid == pid && p.killed {
			return p, true
		}
	}
	return passed{}, false
}

// death is one process that ended, by our doing.
type death struct {
	program string
	pid     int
	at      time.Time
	back    time.Time // when the program was started again
	named   *passed   // the boundary; nil: it was killed from outside
}

// resumption is how long work lay after the death of who was at it.
type resumption struct {
	death death
	what  string // service and app
	after time.Duration
}

// resumptions finds for each death what the process was at (what it had passed a boundary with, other than the last),
// and when that was taken up again. Where the program died once more meanwhile, the time counts from then; where the
// bus or the door was away, from when it was back.
// The gateway, watch and notify are left out: the first's work is taken up by whoever asks again, the second's at the
// next look, and the third tells one thing after the other at its own pace.
func resumptions(trail []passed, deaths []death) []resumption {
	type work struct{ service, app string }
	last := map[int]map[work]passed{} // by pid
	for _, p := range trail {
		if last[p.pid] == nil {
			last[p.pid] = map[work]passed{}
		}
		last[p.pid][work{p.service, p.app}] = p
	}
	var all []resumption
	for _, d := range deaths {
		for w, p := range last[d.pid] {
			if p.boundary == "ack" || slices.Contains([]string{"gateway", "watch", "notify", "ledger"}, w.service) {
				continue
			}
			i := slices.IndexFunc(trail, func(p passed) bool {
				return p.service == w.service && p.app == w.app && p.pid != d.pid && p.at.After(d.at)
			})
			if i < 0 {
				continue // the run's end is checked by itself
			}
			since := d.at
			for _, other := range deaths {
				from := other.at
				if needs(other.program) {
					from = other.back
				}
				if (other.program == d.program || needs(other.program)) && from.After(since) && from.Before(trail[i].at) {
					since = from
				}
			}
			all = append(all, resumption{d, w.service + " " + w.app, trail[i].at.Sub(since)})
		}
	}
	return all
}

// needs reports whether nobody can go on while a program is dead.
func needs(program string) bool { return program == "bus" || program == "ledger" }
