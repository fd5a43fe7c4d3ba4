package settings

import (
	"fmt"
	"io"
	"log/slog"
)

// Redacted stands where a secret's value would have been.
const Redacted = "[redacted]"

// Secret is a secret's value. Every way to print, format, log or marshal it shows Redacted; only Reveal returns
// the value. The zero Secret is the empty value.
type Secret struct{ value string }

// NewSecret keeps a value as a Secret.
func NewSecret(value string) Secret { return Secret{value} }

// Reveal returns the value. Call it only where the value is handed to the app itself.
func (s Secret) Reveal() string { return s.value }

// String returns Redacted.
func (s Secret) String() string { return Redacted }

// Format writes Redacted for every verb.
func (s Secret) Format(state fmt.State, verb rune) { io.WriteString(state, Redacted) }

// MarshalText returns Redacted, for JSON and all that marshals texts.
func (s Secret) MarshalText() ([]byte, error) { return []byte(Redacted), nil }

// LogValue returns Redacted.
func (s Secret) LogValue() slog.Value { return slog.StringValue(Redacted) }
