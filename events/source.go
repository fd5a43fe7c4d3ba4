package events

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"io/fs"
	"strings"
)

//go:embed *.go
var source embed.FS

// Source identifies this package's source: what decodes events, and says what they mean. What was made of events by
// another source is made anew.
func Source() string { return SourceOf(source) }

// SourceOf identifies the Go files of a folder, tests left out, by their names and texts: 64 hexadecimal digits. It
// panics where the files cannot be read; those that are embedded in the program always can.
func SourceOf(files fs.FS) string {
	names, err := fs.Glob(files, "*.go")
	if err != nil {
		panic("events: reading source: " + err.Error())
	}
	h := sha256.New()
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		text, err := fs.ReadFile(files, name)
		if err != nil {
			panic("events: reading source: " + err.Error())
		}
		fmt.Fprintf(h, "%s %d\n%s", name, len(text), text)
	}
	return hex.EncodeToString(h.Sum(nil))
}
