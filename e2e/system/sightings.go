package system

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
)

// Sightings looks for a secret everywhere that Towpath writes or says something: events, every file of the
// system (ledger, settings, git, logs of the programs, and the registry's images, unpacked), what the Engine knows of the
// app's containers, the environment and arguments of every process of the machine, those of containers included, and
// what the gateway answers about the app's runs and environments. It knows the secret's base64, hexadecimal and URL forms too.
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
	if err := s.answers(ctx, app, look); err != nil {
		return nil, err
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
		look(path+" unpacked", unpacked(content))
		return nil
	})
	if files == 0 {
		return nil, fmt.Errorf("no files in %s: nothing was searched", s.options.Folder)
	}
	return places, errors.Join(err, processes(look))
}

// answers shows what the gateway says of an app, of each of its runs and environments, and of what is there besides, to
// programs and on its pages.
func (s *System) answers(ctx context.Context, app string, look func(place string, content []byte)) error {
	list, err := s.api(ctx, "/v1/runs?app="+app)
	if err != nil {
		return err
	}
	var runs []struct {
		Number int
		URL    string
		Stages []struct{ Env string }
	}
	if err := json.Unmarshal(list, &runs); err != nil || len(runs) == 0 {
		return fmt.Errorf("no run of %s, so nothing can be searched: %.200s: %w", app, list, err)
	}
	paths := map[string]bool{
		"/v1/runs?app=" + app: true, "/v1/events?app=" + app: true, "/v1/apps": true, "/v1/environments": true, "/v1/stuck": true, "/v1/messages": true,
		"/v1/actors": true, "/v1/doctor": true,
	}
	for _, run := range runs {
		one := fmt.Sprintf("/v1/apps/%s/runs/%d", app, run.Number)
		paths[one], paths[one+"/logs"], paths[fmt.Sprintf("/v1/audit/export?app=%s&run=%d", app, run.Number)] = true, true, true
		for _, stage := range run.Stages {
			if stage.Env != "" {
				env := "/v1/environments/" + stage.Env
				paths[env], paths[env+"/state"], paths["/v1/audit/coverage/"+stage.Env] = true, true, true
				paths["/v1/settings/"+stage.Env+"/"+app], paths["/v1/secrets/"+stage.Env+"/"+app] = true, true
			}
		}
		_, page, err := Fetch(ctx, run.URL)
		if err != nil {
			return err
		}
		look("page "+run.URL, []byte(page))
	}
	for path := range paths {
		body, err := s.api(ctx, path)
		if err != nil {
			return err
		}
		look(path, body)
	}
	return nil
}

// unpacked returns what a layer of an image holds, and nothing for other files.
func unpacked(content []byte) []byte {
	layer, err := gzip.NewReader(bytes.NewReader(content))
	if err != nil {
		return nil
	}
	text, _ := io.ReadAll(io.LimitReader(layer, 256<<20)) // what comes before damage is looked at
	return text
}

// processes shows what every process was started with that this one may see: as root, all of them.
func processes(look func(place string, content []byte)) error {
	folders, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return err
	}
	seen := 0
	for _, folder := range folders {
		for _, name := range []string{"environ", "cmdline"} {
			content, err := os.ReadFile(filepath.Join(folder, name))
			if err != nil {
				continue // it has ended, or is another user's
			}
			seen += len(content)
			look(folder+"/"+name, content)
		}
	}
	if seen == 0 {
		return errors.New("no process has an environment: nothing was searched")
	}
	return nil
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
