package ledger

import (
	"embed"

	"towpath.dev/events"
)

//go:embed *.go
var source embed.FS

// Source identifies this package's source (events.SourceOf), which sets aside what it cannot trust and read.
func Source() string { return events.SourceOf(source) }
