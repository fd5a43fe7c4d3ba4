package client

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Names of the files in the data folder of `towpath up` that say where it answers and to whom.
const (
	URLFile   = "url"
	TokenFile = "token"
)

// DataFolder is the folder in which `towpath up` keeps everything: TOWPATH_DATA, else
// $XDG_DATA_HOME/towpath, else ~/.local/share/towpath.
func DataFolder() string {
	if dir := os.Getenv("TOWPATH_DATA"); dir != "" {
		return dir
	}
	if dir := os.Getenv("XDG_DATA_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "towpath")
	}
	home, err := os.UserHomeDir()
	if err != nil {
		home = "/var/lib"
	}
	return filepath.Join(home, ".local", "share", "towpath")
}

// Open returns a client for the place and the person that the environment names: TOWPATH_URL and
// TOWPATH_TOKEN, and for what is not set there, the files of the data folder.
func Open(data string) (*Client, error) {
	base, token := os.Getenv("TOWPATH_URL"), os.Getenv("TOWPATH_TOKEN")
	if base == "" {
		text, err := readLine(filepath.Join(data, URLFile))
		if err != nil {
			return nil, notHere(data, err)
		}
		base = text
		if token == "" {
			if token, err = readLine(filepath.Join(data, TokenFile)); err != nil {
				return nil, notHere(data, err)
			}
		}
	}
	if token == "" {
		return nil, &Error{
			What: "asking the gateway", On: base, Why: "there is no token",
			Do: "set TOWPATH_TOKEN, or TOWPATH_DATA to the data folder of `towpath up`", Code: CodeInvalid,
		}
	}
	return New(base, token)
}

func readLine(name string) (string, error) {
	data, err := os.ReadFile(name)
	return strings.TrimSpace(string(data)), err
}

func notHere(data string, err error) error {
	e := &Error{What: "finding Towpath", On: data, Why: err.Error(), Code: CodeUnreachable, cause: err,
		Do: "start it with `towpath up`, or set TOWPATH_URL and TOWPATH_TOKEN (or TOWPATH_DATA) to where it runs"}
	if errors.Is(err, fs.ErrNotExist) {
		e.Why = "nothing has run on this data folder yet"
	}
	if errors.Is(err, fs.ErrPermission) {
		e.Why, e.Do = "its files belong to somebody else: "+err.Error(), "use the account that runs `towpath up`, or set TOWPATH_URL and TOWPATH_TOKEN"
	}
	return e
}
