package gateway

import "sync"

// maxRemembered is how many commands are remembered.
const maxRemembered = 10_000

// commandLog remembers the newest commands, so that one which is sent again gets its answer again without a look into
// the ledger, which has all of them.
type commandLog struct {
	mu    sync.Mutex
	byID  map[string]remembered
	order []string
}

type remembered struct {
	actor string
	order order // as it was sent
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
