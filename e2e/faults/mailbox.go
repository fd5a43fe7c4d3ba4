package faults

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
)

// mailbox is whom notify tells. What it answered 200 to was told.
type mailbox struct {
	server *httptest.Server
	mu     sync.Mutex
	told   map[string]int // "done app1/3", how often
}

// openMailbox returns one, and the part of a platform file that names it.
func openMailbox(folder string) (*mailbox, string, error) {
	m := &mailbox{told: map[string]int{}}
	m.server = httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.told[r.Header.Get("Towpath-Kind")+" "+r.Header.Get("Towpath-Run")]++
	}))
	file := filepath.Join(folder, "people.url")
	return m, fmt.Sprintf("notify: [{name: people, urlFile: %q, kinds: [done, failed]}]\n", file), os.WriteFile(file, []byte(m.server.URL), 0o600)
}

func (m *mailbox) close() { m.server.Close() }

// untold are the runs of whose end nobody was told. To be told twice is what notify promises.
func (m *mailbox) untold(all []asked) []fault {
	m.mu.Lock()
	defer m.mu.Unlock()
	var faults []fault
	for _, a := range all {
		if a.status != "done" && a.status != "failed" {
			continue
		}
		if what := fmt.Sprintf("%s %s/%d", a.status, a.app, a.run); m.told[what] == 0 {
			faults = append(faults, fault{lost, "nobody was told: " + what})
		}
	}
	return faults
}
