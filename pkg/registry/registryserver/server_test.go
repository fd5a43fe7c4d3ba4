package registryserver_test

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"towpath.dev/pkg/registry/registryserver"
)

func TestServer(t *testing.T) {
	var log bytes.Buffer
	dir := filepath.Join(t.TempDir(), "made", "by it")
	s, err := registryserver.Start(registryserver.Config{Dir: dir, Listen: "127.0.0.1:0", Logger: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close(context.WithoutCancel(t.Context()))
	response, err := http.Get("http://" + s.Addr() + "/v2/nothing/manifests/here")
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(response.Body)
	response.Body.Close()
	if response.StatusCode != http.StatusNotFound || !strings.Contains(string(body), "UNKNOWN") {
		t.Errorf("asking for nothing: %s %s", response.Status, body)
	}
	request, err := http.NewRequest(http.MethodDelete, "http://"+s.Addr()+"/v2/hello/manifests/sha256:"+strings.Repeat("0", 64), nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err = http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	if response.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("deleting: %s", response.Status)
	}
	if _, err := registryserver.Start(registryserver.Config{Dir: t.TempDir(), Listen: s.Addr()}); err == nil {
		t.Error("two listen on one address")
	}
	if _, err := registryserver.Start(registryserver.Config{Dir: "/dev/null/x", Listen: "127.0.0.1:0"}); err == nil {
		t.Error("a folder that cannot be made is taken")
	}
	if err := s.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if log.Len() > 0 {
		t.Errorf("what clients do wrong is in the log: %s", log.String())
	}
}
