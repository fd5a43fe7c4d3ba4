package system

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"towpath.dev/pkg/freeport"
)

// Registry is the real registry program, CNCF distribution, with its storage in a folder.
type Registry struct {
	binary, folder, address string
	process                 *process
}

// StartRegistry starts the registry on a free port of 127.0.0.1 and waits until it answers.
func StartRegistry(ctx context.Context, b Binaries, folder string) (*Registry, error) {
	port, err := freeport.Port()
	if err != nil {
		return nil, err
	}
	r := &Registry{binary: filepath.Join(b.Servers, "registry"), folder: folder, address: fmt.Sprintf("127.0.0.1:%d", port)}
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return nil, err
	}
	config := fmt.Sprintf("version: 0.1\nlog: {level: warn}\nstorage:\n  filesystem: {rootdirectory: %s}\n  delete: {enabled: true}\nhttp: {addr: %s}\n",
		filepath.Join(folder, "data"), r.address)
	if err := os.WriteFile(filepath.Join(folder, "config.yml"), []byte(config), 0o600); err != nil {
		return nil, err
	}
	if err := r.Again(ctx); err != nil {
		return nil, err
	}
	return r, nil
}

// Address is host:port.
func (r *Registry) Address() string { return r.address }

// Again starts the registry where it was.
func (r *Registry) Again(ctx context.Context) error {
	p, err := startProcess("registry", filepath.Join(r.folder, "log"), append(os.Environ(), "OTEL_TRACES_EXPORTER=none"), r.binary, "serve", filepath.Join(r.folder, "config.yml"))
	if err != nil {
		return err
	}
	r.process = p
	return until(ctx, "the registry", 20*time.Second, []*process{p}, func(ctx context.Context) error {
		return answers(ctx, "http://"+r.address+"/v2/", http.StatusOK)
	})
}

// Kill ends the registry with SIGKILL.
func (r *Registry) Kill() { r.process.kill() }

// Close ends the registry.
func (r *Registry) Close() { r.process.kill() }

// answers returns nil when a GET has the wanted status.
func answers(ctx context.Context, url string, want int) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	response.Body.Close()
	if response.StatusCode != want {
		return fmt.Errorf("%s answered %s", url, response.Status)
	}
	return nil
}
