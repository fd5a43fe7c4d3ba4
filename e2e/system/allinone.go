package system

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
)

// prepareAllInOne describes the one process of `towpath up`.
func (s *System) prepareAllInOne() error {
	if s.options.Platform != "" {
		if err := os.WriteFile(filepath.Join(s.data, "platform.yaml"), []byte(s.options.Platform), 0o600); err != nil {
			return err
		}
	}
	inside := s.registry
	if s.options.Registry != "" {
		inside = "127.0.0.1:0" // not used: the platform names another
	}
	s.programs = []program{{
		name: "towpath",
		argv: []string{filepath.Join(s.options.Binaries.Folder, "towpath"), "up", "--data", s.data,
			"--listen", s.gateway, "--edge-listen", s.edge, "--registry-listen", inside, "--bus-listen", s.bus},
		ready: s.entriesReady,
	}}
	if s.options.AckWait > 0 {
		s.programs[0].argv = append(s.programs[0].argv, "--ack-wait", s.options.AckWait.String())
	}
	return nil
}

// entriesReady says whether gateway and edge take requests, and reads the token that was written for the operator.
func (s *System) entriesReady(ctx context.Context) error {
	token, err := os.ReadFile(filepath.Join(s.data, "token"))
	if err != nil {
		return err
	}
	s.token = strings.TrimSpace(string(token))
	if err := answers(ctx, "http://"+s.gateway+"/healthz", http.StatusOK); err != nil {
		return fmt.Errorf("gateway: %w", err)
	}
	status, _, err := s.Get("none", "none", "/")
	if err != nil || status == 0 {
		return fmt.Errorf("edge: %w", err)
	}
	return nil
}
