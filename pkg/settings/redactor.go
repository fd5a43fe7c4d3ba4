package settings

import (
	"bytes"
	"encoding/base32"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"io"
	"net/url"
	"slices"
	"strings"
	"sync"
)

// Shortest values that are looked for: shorter ones would blot out ordinary text.
const (
	shortestPlain   = 3 // bytes, as it is
	shortestEncoded = 6 // bytes, in another encoding
	shortestLine    = 8 // bytes, one line of a value that has several
)

// Redactor passes a stream on with every secret in it replaced by Redacted: as it is, without the white space at
// its ends, each long line of it, and in base64 (standard and URL alphabet, wherever it begins in what was
// encoded), base32, hexadecimal, URL and JSON encoding, also when it is cut across writes. It does not find a secret
// that was changed in another way, or values of fewer than 3 bytes. It holds back only what may be the beginning of
// a secret, until the next Write or Close. It is safe for concurrent use.
type Redactor struct {
	mu      sync.Mutex
	out     io.Writer
	byFirst [256][][]byte // patterns by first byte, longest first
	held    []byte        // may be the beginning of a secret
	covered int           // so many bytes of held belong to a secret that has been replaced already
}

// NewRedactor returns a Redactor that writes to out.
func NewRedactor(out io.Writer, secrets ...Secret) *Redactor {
	r := &Redactor{out: out}
	for _, pattern := range patterns(secrets) {
		r.byFirst[pattern[0]] = append(r.byFirst[pattern[0]], []byte(pattern))
	}
	return r
}

// Write passes on what is surely no secret.
func (r *Redactor) Write(data []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.pass(data, false); err != nil {
		return 0, err
	}
	return len(data), nil
}

// Close passes on what was held back. It does not close the writer below.
func (r *Redactor) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.pass(nil, true)
}

func (r *Redactor) pass(data []byte, last bool) error {
	text := append(r.held, data...)
	var clean bytes.Buffer
	end, i := r.covered, 0 // text[:end] belongs to a secret that has been replaced
	for ; i < len(text); i++ {
		length, open := r.match(text[i:])
		if open && !last {
			break
		}
		if length > 0 && i >= end {
			clean.WriteString(Redacted)
		}
		end = max(end, i+length)
		if i >= end {
			clean.WriteByte(text[i])
		}
	}
	r.held, r.covered = bytes.Clone(text[i:]), max(end-i, 0)
	if clean.Len() == 0 {
		return nil
	}
	_, err := r.out.Write(clean.Bytes())
	return err
}

// match returns the length of the longest pattern that text begins with, and whether a longer one may follow.
func (r *Redactor) match(text []byte) (length int, open bool) {
	for _, pattern := range r.byFirst[text[0]] {
		if len(pattern) > len(text) {
			open = open || bytes.HasPrefix(pattern, text)
		} else if bytes.HasPrefix(text, pattern) {
			return len(pattern), open
		}
	}
	return 0, open
}

// Redact replaces the secrets in one text.
func Redact(text string, secrets ...Secret) string {
	var b strings.Builder
	r := NewRedactor(&b, secrets...)
	io.WriteString(r, text) // a strings.Builder does not fail
	r.Close()
	return b.String()
}

// patterns lists every form of the secrets, longest first, each once.
func patterns(secrets []Secret) []string {
	var all []string
	for _, secret := range secrets {
		value := secret.Reveal()
		forms := []string{value, strings.TrimSpace(value)}
		for line := range strings.Lines(value) {
			if line = strings.TrimSpace(line); len(line) >= shortestLine {
				forms = append(forms, line)
			}
		}
		for _, form := range forms {
			if len(form) >= shortestPlain {
				all = append(all, form)
			}
			if len(form) >= shortestEncoded {
				all = append(all, encodings(form)...)
			}
		}
	}
	slices.SortFunc(all, func(a, b string) int {
		if len(a) != len(b) {
			return len(b) - len(a)
		}
		return strings.Compare(a, b)
	})
	return slices.Compact(all)
}

func encodings(value string) []string {
	forms := []string{
		url.QueryEscape(value), url.PathEscape(value),
		strings.ReplaceAll(url.QueryEscape(value), "+", "%20"),
		hex.EncodeToString([]byte(value)), strings.ToUpper(hex.EncodeToString([]byte(value))),
		base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString([]byte(value)),
	}
	for _, escapeHTML := range []bool{false, true} {
		var b strings.Builder
		encoder := json.NewEncoder(&b)
		encoder.SetEscapeHTML(escapeHTML)
		if encoder.Encode(value) == nil {
			forms = append(forms, strings.Trim(strings.TrimSpace(b.String()), `"`))
		}
	}
	for _, encoding := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
		for before := range 3 {
			forms = append(forms, insideBase64(encoding, value, before))
		}
	}
	return slices.DeleteFunc(forms, func(form string) bool { return len(form) < shortestEncoded })
}

// insideBase64 is the part of a base64 text that depends on value alone when before more bytes stand in front of it
// and any number behind it.
func insideBase64(encoding *base64.Encoding, value string, before int) string {
	encoded := encoding.EncodeToString([]byte(strings.Repeat("\x00", before) + value))
	first := (before*8 + 5) / 6
	last := (before + len(value)) * 8 / 6
	return encoded[first:last]
}
