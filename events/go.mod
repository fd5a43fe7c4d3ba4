module towpath.dev/events

go 1.26.8
