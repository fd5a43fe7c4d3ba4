package towpath

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"towpath.dev/pkg/wholefile"
)

// Place is where a running process answers, as it is kept in its data folder.
type Place struct {
	URL      string            `json:"url"`      // of the gateway
	Edge     string            `json:"edge"`     // host:port at which apps are reached
	Registry string            `json:"registry"` // host:port, the first part of images' names
	Install  string            `json:"install"`  // what the installation labels its containers with
	Listen   map[string]string `json:"listen"`   // where gateway, edge and the registry inside listen
	Runs     string            `json:"-"`        // page that lists the runs, with the right to see it
	Data     string            `json:"-"`
	Name     string            `json:"-"` // of the first administrator
	Email    string            `json:"-"`
}

func placeFile(data string) string { return filepath.Join(data, "place.json") }

// ReadPlace reads where the process on a data folder answers, or answered when it last ran. The error
// wraps fs.ErrNotExist where none ever did.
func ReadPlace(data string) (Place, error) {
	text, err := os.ReadFile(placeFile(data))
	if err != nil {
		return Place{}, fmt.Errorf("reading where Towpath is: %w", err)
	}
	var p Place
	if err := json.Unmarshal(text, &p); err != nil {
		return Place{}, fmt.Errorf("reading where Towpath is, %s: %w", placeFile(data), err)
	}
	p.Data = data
	return p, nil
}

// write keeps the place for the commands and for the next start.
func (p Place) write(data string) error {
	text, err := json.MarshalIndent(p, "", "  ")
	if err != nil {
		return err
	}
	return wholefile.Write(placeFile(data), append(text, '\n'), 0o600)
}

// listenedBefore is where the start before listened; empty for the first.
func listenedBefore(data string) (map[string]string, error) {
	p, err := ReadPlace(data)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return p.Listen, err
}
