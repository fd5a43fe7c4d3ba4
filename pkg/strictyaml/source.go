package strictyaml

import (
	"embed"

	"towpath.dev/events"
)

//go:embed *.go
var source embed.FS

// Source identifies this package's source (events.SourceOf), which reads what is written in YAML, pinned definitions too.
func Source() string { return events.SourceOf(source) }
