package identity

import (
	"embed"

	"towpath.dev/events"
)

//go:embed *.go
var source embed.FS

// Source identifies this package's source (events.SourceOf), which says which signatures count.
func Source() string { return events.SourceOf(source) }
