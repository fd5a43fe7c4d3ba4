package contents

import (
	"bufio"
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Signatures are the hashes and patterns of files that are known to be malicious.
type Signatures struct {
	hashes   map[[sha256.Size]byte][]hashed
	patterns []pattern
	digest   string
}

type hashed struct {
	size int64 // -1: any
	name string
}

// pattern is bytes that a file holds.
type pattern struct {
	name string
	text []byte
	at   int64 // where in the file; -1: anywhere
}

// maxPattern bounds a pattern, in bytes: windows overlap by so much.
const maxPattern = 4 << 10

// builtin are what Towpath knows by itself, in the form of ClamAV's .ndb files: the EICAR test file, and what nothing but
// an intruder writes.
var builtin = []pattern{
	{"Eicar-Test-Signature", []byte(`X5O!P%@AP[4\PZX54(P^)7CC)7}$EICAR` + `-STANDARD-ANTIVIRUS-TEST-FILE!$H+H*`), 0},
	{"Towpath.Shell.Reverse-Bash", []byte("bash -i >& /dev/" + "tcp/"), -1},
	{"Towpath.Shell.Reverse-Netcat", []byte("nc -e /bin/" + "sh "), -1},
	{"Towpath.Webshell.PHP-Eval", []byte("eval(base64_" + "decode($_"), -1},
	{"Towpath.Miner.XMRig", []byte("xmrig.com/" + "wizard"), -1},
}

// LoadSignatures reads a folder of ClamAV signature files over the built-in ones: .hsb (SHA-256 hashes) and .ndb
// (patterns without wildcards). Of other files in it nothing is read: a line that it cannot apply is an error, because a
// signature that is passed over is a hole. folder "": the built-in ones alone.
func LoadSignatures(folder string) (*Signatures, error) {
	s := &Signatures{hashes: map[[sha256.Size]byte][]hashed{}, patterns: slices.Clone(builtin)}
	sum := sha256.New()
	for _, p := range builtin {
		fmt.Fprintf(sum, "%s %x %d\n", p.name, p.text, p.at)
	}
	if folder != "" {
		entries, err := os.ReadDir(folder)
		if err != nil {
			return nil, fmt.Errorf("reading the folder of signatures: %w", err)
		}
		for _, e := range entries {
			read := map[string]func(string) error{".hsb": s.addHash, ".ndb": s.addPattern}[filepath.Ext(e.Name())]
			if read == nil {
				continue
			}
			text, err := os.ReadFile(filepath.Join(folder, e.Name()))
			if err != nil {
				return nil, fmt.Errorf("reading signatures: %w", err)
			}
			sum.Write(text)
			lines := bufio.NewScanner(bytes.NewReader(text))
			lines.Buffer(nil, 4*maxPattern)
			for n := 1; lines.Scan(); n++ {
				line := strings.TrimSpace(lines.Text())
				if line == "" || line[0] == '#' {
					continue
				}
				if err := read(line); err != nil {
					return nil, fmt.Errorf("%s:%d: %w", filepath.Join(folder, e.Name()), n, err)
				}
			}
			if err := lines.Err(); err != nil {
				return nil, fmt.Errorf("%s: %w", filepath.Join(folder, e.Name()), err)
			}
		}
	}
	s.digest = hex.EncodeToString(sum.Sum(nil))[:12]
	return s, nil
}

// Digest names what the signatures are.
func (s *Signatures) Digest() string { return s.digest }

// addHash reads "sha256:size:name"; a size of * is any.
func (s *Signatures) addHash(line string) error {
	fields := strings.Split(line, ":")
	if len(fields) < 3 {
		return fmt.Errorf("must be SHA256:SIZE:NAME")
	}
	text, err := hex.DecodeString(fields[0])
	if err != nil || len(text) != sha256.Size {
		return fmt.Errorf("the hash must be a SHA-256 in hexadecimal digits")
	}
	h := hashed{size: -1, name: fields[2]}
	if fields[1] != "*" {
		if h.size, err = strconv.ParseInt(fields[1], 10, 64); err != nil || h.size < 0 {
			return fmt.Errorf("the size must be a number of bytes, or *")
		}
	}
	s.hashes[[sha256.Size]byte(text)] = append(s.hashes[[sha256.Size]byte(text)], h)
	return nil
}

// addPattern reads "name:target:offset:hex", with target 0 (any file) and an offset that is a number or *.
func (s *Signatures) addPattern(line string) error {
	fields := strings.Split(line, ":")
	if len(fields) < 4 {
		return fmt.Errorf("must be NAME:TARGET:OFFSET:HEX")
	}
	if fields[1] != "0" {
		return fmt.Errorf("the target must be 0 (any file); for others use clamd")
	}
	p := pattern{name: fields[0], at: -1}
	var err error
	if fields[2] != "*" {
		if p.at, err = strconv.ParseInt(fields[2], 10, 64); err != nil || p.at < 0 {
			return fmt.Errorf("the offset must be a number or *; for others use clamd")
		}
	}
	if p.text, err = hex.DecodeString(fields[3]); err != nil || len(p.text) < 8 || len(p.text) > maxPattern {
		return fmt.Errorf("the pattern must be %d–%d bytes in hexadecimal digits, without wildcards; for others use clamd", 8, maxPattern)
	}
	s.patterns = append(s.patterns, p)
	return nil
}

// byHash returns the names of the signatures that a whole file has.
func (s *Signatures) byHash(sum [sha256.Size]byte, size int64) []string {
	var names []string
	for _, h := range s.hashes[sum] {
		if h.size < 0 || h.size == size {
			names = append(names, h.name)
		}
	}
	return names
}

// in returns the names of the patterns that a window of a file holds, which begins at an offset.
func (s *Signatures) in(window []byte, offset int64) []string {
	var names []string
	for _, p := range s.patterns {
		at := p.at - offset
		if p.at < 0 && bytes.Contains(window, p.text) || p.at >= 0 && at >= 0 && at <= int64(len(window)) && bytes.HasPrefix(window[at:], p.text) {
			names = append(names, p.name)
		}
	}
	slices.SortFunc(names, cmp.Compare[string])
	return names
}
