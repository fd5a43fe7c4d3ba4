package layers

import (
	"archive/tar"
	"cmp"
	"crypto/sha256"
	"io"
	"maps"
	gopath "path"
	"slices"
	"strings"
)

// Privileged is a program that runs as its owner or group, whoever starts it.
type Privileged struct {
	Path  string // absolute
	Layer string // DiffID
	User  bool   // as its owner; else as its group
	// Shell says that it is a shell or another interpreter, by its name or because it is the same file as one.
	Shell bool
}

const (
	modeSetuid = 0o4000
	modeSetgid = 0o2000
	modeRun    = 0o111
	// maxPrivileged bounds what is kept.
	maxPrivileged = 1000
	// maxHashed is the size up to which a program is compared with shells, in bytes.
	maxHashed = 32 << 20

	passwdPath = "/etc/passwd"
	maxPasswd  = 1 << 20
)

// Whiteouts of the OCI image specification: a file of a lower layer, or all of a folder, is not there any more.
const (
	whiteout = ".wh."
	opaque   = ".wh..wh..opq"
)

// shells run what they are told to.
var shells = []string{
	"ash", "bash", "busybox", "csh", "dash", "fish", "ksh", "mksh", "rbash", "sh", "tcsh", "zsh",
	"awk", "env", "find", "gawk", "lua", "mawk", "node", "nodejs", "perl", "php", "python", "ruby", "tclsh", "vi", "vim",
}

// isShell knows shells by their names, versions apart: python3.11.
func isShell(path string) bool {
	return slices.Contains(shells, strings.TrimRight(gopath.Base(path), "0123456789.-"))
}

// modes follows which programs of an image are privileged, layer by layer.
type modes struct {
	all    map[string]privileged // by path
	shells map[[sha256.Size]byte]bool
}

type privileged struct {
	Privileged
	sum [sha256.Size]byte // of its content; zero: not known
}

func newModes() modes {
	return modes{all: map[string]privileged{}, shells: map[[sha256.Size]byte]bool{}}
}

// entry takes note of one entry. An error is the archive's.
func (m modes) entry(layer, path string, header *tar.Header, content io.Reader) error {
	folder, name := gopath.Split(path)
	switch {
	case name == opaque:
		m.drop(folder, layer)
		return nil
	case strings.HasPrefix(name, whiteout):
		path = folder + strings.TrimPrefix(name, whiteout)
		delete(m.all, path)
		m.drop(path+"/", "")
		return nil
	}
	before := m.all[path]
	if header.Typeflag != tar.TypeDir {
		delete(m.all, path) // whatever it was, this is in its place
		m.drop(path+"/", "")
	}
	switch header.Typeflag {
	case tar.TypeLink:
		if linked, ok := m.all[absolute(header.Linkname)]; ok {
			linked.Path, linked.Layer = path, layer
			m.add(linked)
		} else if before.Path == absolute(header.Linkname) {
			m.add(before) // a link to itself changes nothing
		}
	case tar.TypeReg:
		bits := header.Mode & (modeSetuid | modeSetgid)
		gains := bits != 0 && header.Mode&modeRun != 0
		if !gains && !isShell(path) {
			return nil
		}
		p := privileged{Privileged: Privileged{Path: path, Layer: layer, User: bits&modeSetuid != 0}}
		if header.Size > 0 && header.Size <= maxHashed {
			sum := sha256.New()
			if _, err := io.Copy(sum, content); err != nil {
				return err
			}
			sum.Sum(p.sum[:0])
		}
		if isShell(path) && p.sum != [sha256.Size]byte{} {
			m.shells[p.sum] = true
		}
		if gains {
			m.add(p)
		}
	}
	return nil
}

func (m modes) add(p privileged) {
	if len(m.all) < maxPrivileged {
		m.all[p.Path] = p
	}
}

// drop forgets what is below a folder, but for what a layer itself brought there.
func (m modes) drop(folder, but string) {
	for path, p := range m.all {
		if strings.HasPrefix(path, folder) && (but == "" || p.Layer != but) {
			delete(m.all, path)
		}
	}
}

func (m modes) list() []Privileged {
	var all []Privileged
	for p := range maps.Values(m.all) {
		p.Shell = isShell(p.Path) || m.shells[p.sum]
		all = append(all, p.Privileged)
	}
	slices.SortFunc(all, func(a, b Privileged) int { return cmp.Compare(a.Path, b.Path) })
	return all
}

// users reads a passwd file: name:password:uid:…
func users(passwd []byte) map[string]string {
	ids := map[string]string{}
	for line := range strings.Lines(string(passwd)) {
		if fields := strings.Split(line, ":"); len(fields) > 3 && fields[0] != "" {
			if _, known := ids[fields[0]]; !known { // the first counts
				ids[fields[0]] = fields[2]
			}
		}
	}
	return ids
}
