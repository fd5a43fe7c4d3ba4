// Package events is Towpath's contract: every event that its services exchange, as CDEvents 0.5.1 in
// CloudEvents 1.0 binary mode over NATS, where each is stored, and which streams and consumers carry
// them. It decodes every version that was ever written and knows no transport: the standard library is
// its only dependency.
package events

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"
)

// SpecVersion is the CDEvents version of every event written.
const SpecVersion = "0.5.1"

// Type is a CDEvents type with its version, as in context.type.
type Type string

// Subject returns the type's subject token in lower case: "build", "slot".
func (t Type) Subject() string { s, _ := t.tokens(); return s }

// Predicate returns the type's predicate: "started", "taken".
func (t Type) Predicate() string { _, p := t.tokens(); return p }

func (t Type) tokens() (subject, predicate string) {
	_, rest, _ := strings.Cut(string(t), ".")
	_, rest, _ = strings.Cut(rest, ".")
	subject, rest, ok := strings.Cut(rest, ".")
	if !ok {
		return "", ""
	}
	if _, after, ok := strings.Cut(subject, "-"); ok {
		subject = after
	}
	predicate, _, _ = strings.Cut(rest, ".")
	return subject, predicate
}

// Body is the typed content of one event: subject.id, subject.content and customData. The set of
// bodies is closed; each is declared in the file of the service that writes it.
type Body interface {
	Type() Type
	// SubjectID is CDEvents' subject.id.
	SubjectID() string
	setSubjectID(string)
	// custom returns a pointer to what customData holds, or nil where the type has none.
	custom() any
}

// About is the subject.id of a Body; every Body embeds it.
type About struct {
	ID string `json:"-"`
}

// SubjectID returns CDEvents' subject.id.
func (a *About) SubjectID() string { return a.ID }

func (a *About) setSubjectID(id string) { a.ID = id }

// Reference is CDEvents' {id, source} pair.
type Reference struct {
	ID     string `json:"id"`
	Source string `json:"source,omitempty"` // URI reference
}

// Link is an embedded CDEvents link.
type Link struct {
	LinkType string         `json:"linkType"` // PATH, RELATION or END
	LinkKind string         `json:"linkKind,omitempty"`
	From     *LinkEnd       `json:"from,omitempty"`
	Target   *LinkEnd       `json:"target,omitempty"`
	Tags     map[string]any `json:"tags"`
}

// LinkEnd names an event by its context.id.
type LinkEnd struct {
	ContextID string `json:"contextId"`
}

// Relation links to another event, under a kind such as "replays".
func Relation(kind, eventID string) Link {
	return Link{LinkType: "RELATION", LinkKind: kind, Target: &LinkEnd{eventID}, Tags: map[string]any{}}
}

// Path links to the event that led to this one.
func Path(eventID string) Link {
	return Link{LinkType: "PATH", From: &LinkEnd{eventID}, Tags: map[string]any{}}
}

// Event is one immutable CDEvent.
type Event struct {
	ID      string // UUID
	Source  string // URI reference of the writer
	Time    time.Time
	ChainID string // the run's UUID; empty for what belongs to no run
	Links   []Link
	Body    Body
}

// New returns an event of the given writer, with a fresh id. Time is kept to the microsecond in UTC,
// so that it is the same after decoding.
func New(w Writer, at time.Time, chainID string, body Body, links ...Link) Event {
	return Event{
		ID: NewID(), Source: sourceOf(w), Time: at.UTC().Truncate(time.Microsecond),
		ChainID: chainID, Links: links, Body: body,
	}
}

func sourceOf(w Writer) string { return "/towpath/" + string(w) }

// NewID returns a random UUID (version 4, RFC 9562).
func NewID() string {
	var b [16]byte
	rand.Read(b[:])
	b[6] = b[6]&0x0f | 0x40
	b[8] = b[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[0:4], b[4:6], b[6:8], b[8:10], b[10:16])
}

type wireEvent struct {
	Context struct {
		SpecVersion string `json:"specversion"`
		ID          string `json:"id"`
		Source      string `json:"source"`
		Type        Type   `json:"type"`
		Timestamp   string `json:"timestamp"`
		ChainID     string `json:"chainId,omitempty"`
		Links       []Link `json:"links,omitempty"`
	} `json:"context"`
	Subject struct {
		ID      string          `json:"id"`
		Source  string          `json:"source,omitempty"`
		Content json.RawMessage `json:"content"`
	} `json:"subject"`
	CustomData            json.RawMessage `json:"customData,omitempty"`
	CustomDataContentType string          `json:"customDataContentType,omitempty"`
}

// Encode returns the event as CDEvents JSON: the body of the message that carries it.
func (e Event) Encode() ([]byte, error) {
	var w wireEvent
	w.Context.SpecVersion = SpecVersion
	w.Context.ID, w.Context.Source, w.Context.Type = e.ID, e.Source, e.Body.Type()
	w.Context.Timestamp = e.Time.UTC().Format(time.RFC3339Nano)
	w.Context.ChainID, w.Context.Links = e.ChainID, e.Links
	w.Subject.ID = e.Body.SubjectID()
	if w.Context.ID == "" || w.Subject.ID == "" {
		return nil, fmt.Errorf("encoding %s: id and subject id must be given", e.Body.Type())
	}
	var err error
	if w.Subject.Content, err = json.Marshal(e.Body); err != nil {
		return nil, fmt.Errorf("encoding %s: %w", e.Body.Type(), err)
	}
	if c := e.Body.custom(); c != nil {
		if w.CustomData, err = json.Marshal(c); err != nil {
			return nil, fmt.Errorf("encoding customData of %s: %w", e.Body.Type(), err)
		}
		w.CustomDataContentType = "application/json"
	}
	return json.Marshal(w)
}

var (
	// ErrMalformed is wrapped by Decode for bytes that are no CDEvent.
	ErrMalformed = errors.New("malformed event")
	// ErrUnknownType is wrapped by Decode, in an *UnknownTypeError, for a type or version that this build
	// does not know. Such an event is set aside, never guessed at.
	ErrUnknownType = errors.New("unknown event type")
)

// UnknownTypeError says which type or version a build would have to know to read an event.
type UnknownTypeError struct {
	Type        Type
	SpecVersion string // where it is the version of CDEvents that is unknown
}

func (e *UnknownTypeError) Error() string {
	if e.SpecVersion != "" {
		return fmt.Sprintf("%v: %.100q of CDEvents %.20q", ErrUnknownType, string(e.Type), e.SpecVersion)
	}
	return fmt.Sprintf("%v: %.100q", ErrUnknownType, string(e.Type))
}

// Unwrap returns ErrUnknownType.
func (e *UnknownTypeError) Unwrap() error { return ErrUnknownType }

// Headers returns the CloudEvents attributes of binary mode, which mirror the body: names in lower
// case, values percent-encoded as the CloudEvents NATS binding asks.
func (e Event) Headers() map[string]string {
	h := map[string]string{
		"ce-specversion":     "1.0",
		"ce-id":              e.ID,
		"ce-source":          e.Source,
		"ce-type":            string(e.Body.Type()),
		"ce-subject":         percentEncode(e.Body.SubjectID()),
		"ce-time":            e.Time.UTC().Format(time.RFC3339Nano),
		"ce-datacontenttype": "application/json",
	}
	if e.ChainID != "" {
		h["ce-chainid"] = e.ChainID
	}
	return h
}

// CheckHeaders reports the first CloudEvents attribute that does not mirror the body. get returns a
// header's value, or "".
func (e Event) CheckHeaders(get func(name string) string) error {
	for name, want := range e.Headers() {
		got := get(name)
		if got == want {
			continue
		}
		if decoded, err := url.PathUnescape(got); err == nil && decoded == mustUnescape(want) {
			continue
		}
		return fmt.Errorf("header %s is %.100q, the body says %.100q", name, got, want)
	}
	return nil
}

func mustUnescape(s string) string {
	if d, err := url.PathUnescape(s); err == nil {
		return d
	}
	return s
}

// percentEncode encodes what the CloudEvents HTTP and NATS bindings ask for: space, '"', '%', and all
// that is not printable ASCII.
func percentEncode(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if c := s[i]; c <= ' ' || c >= 0x7f || c == '"' || c == '%' {
			fmt.Fprintf(&b, "%%%02X", c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}
