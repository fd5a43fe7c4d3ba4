package policy

import _ "embed"

// DefaultText is the platform file of a fresh `towpath up`: Default, with the reasons.
//
//go:embed platform.yaml
var DefaultText []byte
