package system

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
)

// Sightings looks for a secret everywhere that Towpath writes or says something: events, every file of the
// system (ledger, settings, registry, git, logs of the programs), what the Engine knows of the app's containers,
// and the run's page and logs over HTTP. It knows the secret's base64, hexadecimal and URL forms too.
func (s *System) Sightings(ctx context.Context, app, secret string) ([]string, error) {
	forms := secretForms(secret)
	var places []string
	look := func(place string, content []byte) {
		for name, form := range forms {
			if bytes.Contains(content, form) {
				places = append(places, fmt.Sprintf("%s (as %s)", place, name))
			}
		}
	}
	list, err := s.Events(ctx, "")
	if err != nil {
		return nil, err
	}
	for _, event := range list {
		look(fmt.Sprintf("event %d %s", event.Seq, event.Subject), []byte(event.Line))
	}
	inspected, err := s.Inspect(ctx, app)
	if err != nil {
		return nil, err
	}
	look("docker inspect", []byte(inspected))
	for _, path := range []string{"/v1/runs?app=" + app, "/v1/apps/" + app + "/runs/1", "/v1/apps/" + app + "/runs/1/logs",
		"/v1/settings/dev/" + app, "/v1/secrets/dev/" + app, "/v1/environments/dev", "/v1/doctor"} {
		body, err := s.api(ctx, path)
		if err != nil {
			return nil, err
		}
		look(path, body)
	}
	files := 0
	err = filepath.WalkDir(s.options.Folder, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return nil // files come and go
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return nil
		}
		files++
		look(path, content)
		return nil
	})
	if files == 0 {
		return nil, fmt.Errorf("no files in %s: nothing was searched", s.options.Folder)
	}
	return places, err
}

func secretForms(secret string) map[string][]byte {
	forms := map[string][]byte{
		"plain text": []byte(secret),
		"hex":        []byte(hex.EncodeToString([]byte(secret))),
	}
	if escaped := url.QueryEscape(secret); escaped != secret {
		forms["URL"] = []byte(escaped)
	}
	// In base64 a text looks different at each of three offsets; the first and last groups depend on neighbours.
	for offset := range 3 {
		encoded := base64.StdEncoding.EncodeToString([]byte(strings.Repeat("x", offset) + secret))
		forms[fmt.Sprintf("base64 at %d", offset)] = []byte(encoded[4 : len(encoded)-4])
	}
	return forms
}
