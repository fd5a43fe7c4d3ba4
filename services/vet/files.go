package vet

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"

	"towpath.dev/events"
	"towpath.dev/pkg/policy"
	"towpath.dev/services/vet/contents"
	"towpath.dev/services/vet/layers"
)

// found is what was found in one layer.
type found struct {
	layer   string // DiffID
	matches []contents.Match
}

// files looks into the files of images, and remembers what it found in layers, so that those that images share are
// looked into once.
type files struct {
	platform policy.Vet
	limits   contents.Limits

	once    sync.Once
	scanner *contents.Scanner
	err     error

	mu    sync.Mutex
	known map[string][]contents.Match // by version and DiffID
}

// maxKnown is how many layers are remembered.
const maxKnown = 2000

// prepare reads the signatures, once.
func (f *files) prepare() (*contents.Scanner, error) {
	f.once.Do(func() {
		var clamd *contents.Clamd
		signatures, err := contents.LoadSignatures(f.platform.Signatures)
		if err == nil && f.platform.Clamd != "" {
			clamd, err = contents.ParseClamd(f.platform.Clamd)
		}
		if err != nil {
			f.err = err
			return
		}
		f.known = map[string][]contents.Match{}
		f.scanner, f.err = contents.New(signatures, clamd)
	})
	return f.scanner, f.err
}

// version names what looks into images, all of it.
func (f *files) version(ctx context.Context) (string, error) {
	scanner, err := f.prepare()
	if err != nil {
		return "", err
	}
	version, err := scanner.Version(ctx)
	return scannerName + " " + version, err
}

// look looks into an image's layers, several at once. dir is a folder that it may fill.
func (f *files) look(ctx context.Context, image *layers.Image, version, dir string) ([]found, error) {
	scanner, err := f.prepare()
	if err != nil {
		return nil, err
	}
	scratch, err := os.MkdirTemp(dir, "files-")
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	all := make([]found, 0, len(image.Layers()))
	var once []layers.Layer
	for _, l := range image.Layers() {
		if !slices.ContainsFunc(once, func(o layers.Layer) bool { return o.DiffID == l.DiffID }) {
			once, all = append(once, l), append(all, found{layer: l.DiffID})
		}
	}
	budget := contents.NewBudget(f.limits)
	places := make(chan struct{}, runtime.GOMAXPROCS(0))
	var work sync.WaitGroup
	for i, l := range once {
		if matches, ok := f.recall(version, l.DiffID); ok {
			all[i].matches = matches
			continue
		}
		work.Go(func() {
			places <- struct{}{}
			defer func() { <-places }()
			matches, err := scanner.Layer(ctx, l.File, scratch, budget)
			if err != nil {
				cancel(fmt.Errorf("looking into layer %s: %w", l.DiffID, err))
				return
			}
			all[i].matches = matches
			f.remember(version, l.DiffID, matches)
		})
	}
	work.Wait()
	return all, context.Cause(ctx)
}

func (f *files) recall(version, diffID string) ([]contents.Match, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	matches, ok := f.known[version+" "+diffID]
	return matches, ok
}

// remember keeps what depends on the layer alone, and not on what other layers left of the limits.
func (f *files) remember(version, diffID string, matches []contents.Match) {
	if slices.ContainsFunc(matches, func(m contents.Match) bool { return m.Kind == contents.TooLarge }) {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.known) >= maxKnown {
		clear(f.known)
	}
	f.known[version+" "+diffID] = matches
}

// environment looks for secrets in the variables of an image's configuration.
func (f *files) environment(variables []string) (secret []string, suspected []string) {
	for _, v := range variables {
		name, _, _ := strings.Cut(v, "=")
		for _, m := range f.scanner.Text([]byte(v)) {
			if m.Kind == contents.Secret {
				secret = append(secret, name)
			} else {
				suspected = append(suspected, name)
			}
		}
	}
	return secret, suspected
}

// fileFindings judge what was found in files. Secrets in the layers of the trusted base came with the trust in it.
func fileFindings(c content, base *policy.Base) []events.Finding {
	var all []events.Finding
	for _, layer := range c.files {
		trusted := base != nil && slices.Contains(base.DiffIDs, layer.layer)
		for _, m := range layer.matches {
			if trusted && (m.Kind == contents.Secret || m.Kind == contents.Suspected) {
				continue
			}
			f := fileFinding(m)
			f.Subject, f.Path, f.Layer = tidy(m.Name, maxWord), tidy(m.Path, maxWord), layer.layer
			all = append(all, f)
		}
	}
	const fix = "take it out of the Dockerfile's ENV, make it invalid where it counts, and give it under secrets in towpath.yaml"
	for _, name := range c.secretNames {
		f := newFinding(policy.Secret, fix, "the image's environment holds a secret: %s", name)
		f.Subject = tidy(name, maxWord)
		all = append(all, f)
	}
	for _, name := range c.suspectedNames {
		f := newFinding(policy.SecretSuspected, fix, "the image's environment holds what looks like a secret: %s", name)
		f.Subject = tidy(name, maxWord)
		all = append(all, f)
	}
	return all
}

func fileFinding(m contents.Match) events.Finding {
	at := m.Path
	if m.Line > 0 {
		at = fmt.Sprintf("%s, line %d,", m.Path, m.Line)
	}
	const leaked = "build the image without it (a later layer that deletes it does not help), make it invalid where it counts, and give it under secrets in towpath.yaml"
	switch m.Kind {
	case contents.Malware:
		return newFinding(policy.Malware, "find out how it came there, and whether what brought it can still be trusted; then build without it", "%s is known to be malicious: %s", at, m.Name)
	case contents.Secret:
		return newFinding(policy.Secret, leaked, "%s holds a secret: %s", at, m.Name)
	case contents.Suspected:
		return newFinding(policy.SecretSuspected, leaked, "%s holds what looks like a secret: %s", at, m.Name)
	case contents.TooLarge:
		return newFinding(policy.ImageTooLarge, "leave out what the service does not need at run time, or ask the platform's operator for more (limits in the platform file)",
			"%s was not looked at to its end: %s", at, m.Why)
	}
	return newFinding(policy.ArchiveUnread, "leave it out of the image, or put what is in it there as files", "%s could not be looked into: %s", at, m.Why)
}
