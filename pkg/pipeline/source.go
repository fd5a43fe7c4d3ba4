package pipeline

import (
	"embed"

	"towpath.dev/events"
)

//go:embed *.go
var source embed.FS

// Source identifies this package's source (events.SourceOf), which reads the definitions that runs pin.
func Source() string { return events.SourceOf(source) }
