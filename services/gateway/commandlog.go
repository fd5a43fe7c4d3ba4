package gateway

import "sync"

// maxRemembered is how many commands are remembered.
const maxRemembered = 10_000

// commandLog remembers the newest commands, so that one which is sent again gets its answer again although it makes no
// sense any more: what was cancelled cannot be cancelled. What it has forgotten can still be recorded only once.
type commandLog struct {
	mu    sync.Mutex
	byID  map[string]remembered
	order []string
}

type remembered struct {
	actor string
	verb  string
	text  string
	seq   uint64
}

func (l *commandLog) add(id string, r remembered) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.byID == nil {
		l.byID = map[string]remembered{}
	}
	if _, known := l.byID[id]; known {
		return
	}
	l.byID[id] = r
	if l.order = append(l.order, id); len(l.order) > maxRemembered {
		delete(l.byID, l.order[0])
		l.order = l.order[1:]
	}
}

func (l *commandLog) find(id string) (remembered, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	r, ok := l.byID[id]
	return r, ok
}

// alreadyDone finds the answer to an order that was followed before.
func (c *call) alreadyDone(o order) (seq uint64, text string, done bool) {
	r, ok := c.s.done.find(o.ID)
	if !ok || r.actor != c.actor.ID || r.verb != o.Verb {
		return 0, "", false
	}
	return r.seq, r.text, true
}
