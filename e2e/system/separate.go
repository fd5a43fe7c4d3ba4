package system

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// prepareSeparate does what the documentation tells an operator to do: make keys and split them, generate the bus's
// configuration, start a real nats-server and a real registry, make the streams, and start each service with nothing
// but its own keys.
func (s *System) prepareSeparate(ctx context.Context) error {
	address, towpath := s.bus, filepath.Join(s.options.Binaries.Folder, "towpath")
	keys, identities := s.keys(), filepath.Join(s.data, "identities")
	for _, args := range [][]string{{"keys", "init", "--keys", keys, "--split", identities}, s.busConfig()} {
		if _, err := output(ctx, nil, towpath, args...); err != nil {
			return err
		}
	}
	if err := s.platformOfSeparate(ctx); err != nil {
		return err
	}
	provision := []string{"bus", "init", "--bus", "nats://" + address, "--keys", keys}
	if s.options.AckWait > 0 {
		provision = append(provision, "--ack-wait", s.options.AckWait.String())
	}
	s.programs = []program{{
		name: "bus",
		argv: []string{filepath.Join(s.options.Binaries.Servers, "nats-server"), "-c", s.busFile()},
		ready: func(ctx context.Context) error {
			_, err := output(ctx, nil, towpath, provision...)
			return err
		},
	}}
	for _, service := range Services {
		s.programs = append(s.programs, s.serviceProgram(service, filepath.Join(identities, service), "nats://"+address))
	}
	return nil
}

func (s *System) busFile() string { return filepath.Join(s.data, "nats.conf") }

// busConfig is the command that writes the bus's configuration.
func (s *System) busConfig() []string {
	return []string{"bus", "config", "--keys", s.keys(), "--store", filepath.Join(s.data, "nats"), "--listen", s.bus, "--output", s.busFile()}
}

// ReloadBus does what an operator does after a bot's key was made: it writes the bus's configuration again and tells the
// server, twice. The all-in-one does so by itself.
func (s *System) ReloadBus(ctx context.Context) error {
	bus := s.processes["bus"]
	if bus == nil {
		return nil
	}
	if _, err := output(ctx, nil, filepath.Join(s.options.Binaries.Folder, "towpath"), s.busConfig()...); err != nil {
		return err
	}
	for n := range 2 {
		if err := bus.cmd.Process.Signal(syscall.SIGHUP); err != nil {
			return err
		}
		err := until(ctx, "the bus to read its configuration again", startBound, []*process{bus}, func(context.Context) error {
			text, err := os.ReadFile(s.logFile("bus"))
			if found := bytes.Count(text, []byte("Reloaded server configuration")); err == nil && found <= n {
				err = fmt.Errorf("it did so %d times", found)
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// platformOfSeparate writes platform.yaml: what the scenario says, and the registry's address.
func (s *System) platformOfSeparate(ctx context.Context) error {
	text := s.options.Platform
	if s.options.Registry == "" {
		registry, err := StartRegistry(ctx, s.options.Binaries, filepath.Join(s.options.Folder, "registry"))
		if err != nil {
			return err
		}
		s.own, s.registry = registry, registry.Address()
		text += "\nregistry: {address: \"" + s.registry + "\"}\n"
	}
	return os.WriteFile(filepath.Join(s.data, "platform.yaml"), []byte(text), 0o600)
}

func (s *System) serviceProgram(service, keys, url string) program {
	p := program{
		name: service,
		argv: []string{filepath.Join(s.options.Binaries.Folder, service)},
		env: []string{"TOWPATH_BUS=" + url, "TOWPATH_KEYS=" + keys, "TOWPATH_PLATFORM=" + filepath.Join(s.data, "platform.yaml"),
			"TOWPATH_STATE=" + filepath.Join(s.data, "snapshots"), "TOWPATH_GATEWAY=http://" + s.gateway},
	}
	switch service {
	case "ledger":
		p.argv = append(p.argv, "--seal", filepath.Join(s.data, "seal"))
	case "build", "vet":
		p.argv = append(p.argv, "--work", filepath.Join(s.data, "work-"+service))
	case "gateway":
		p.argv = append(p.argv, "--data", s.data, "--listen", s.gateway, "--edge", "http://"+s.edge)
	case "edge":
		p.argv = append(p.argv, "--listen", s.edge)
		p.ready = s.entriesReady
	}
	return p
}
