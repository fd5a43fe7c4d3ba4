package fold

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"sync"

	"towpath.dev/events"
	"towpath.dev/pkg/pipeline"
)

// definitions are those that runs pin, by digest: most runs of an app pin the same one. They only ever become more, so
// that whoever was given an app may go on reading it. They are safe for concurrent use.
type definitions struct {
	mu    sync.RWMutex
	known map[string]definition
}

// definition is one that runs pin, with its canonical text, which they share.
type definition struct {
	pipeline.Definition
	text json.RawMessage
}

// get returns a definition; where d is nil none is known.
func (d *definitions) get(digest string) (definition, bool) {
	if d == nil {
		return definition{}, false
	}
	d.mu.RLock()
	defer d.mu.RUnlock()
	known, ok := d.known[digest]
	return known, ok
}

// read reads a run's pinned definition, and lets the run share the text of it. A definition's digest is that of its
// canonical text.
func (d *definitions) read(start *events.RunStart) (pipeline.Definition, error) {
	known, ok := d.get(start.DefinitionDigest)
	if ok && bytes.Equal(known.text, start.Definition) {
		start.Definition = known.text
		return known.Definition, nil
	}
	digest := fmt.Sprintf("sha256:%x", sha256.Sum256(start.Definition))
	if digest != start.DefinitionDigest {
		return pipeline.Definition{}, fmt.Errorf("definition has digest %s, the run pins %s", digest, start.DefinitionDigest)
	}
	read, err := pipeline.ParseCanonical(start.Definition)
	if err == nil {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.known[digest] = definition{read, start.Definition}
	}
	return read, err
}

// texts returns the canonical texts.
func (d *definitions) texts() map[string]json.RawMessage {
	d.mu.RLock()
	defer d.mu.RUnlock()
	texts := make(map[string]json.RawMessage, len(d.known))
	for digest, known := range d.known {
		texts[digest] = known.text
	}
	return texts
}
