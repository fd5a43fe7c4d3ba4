package events

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"
)

// Decode reads CDEvents JSON. The error wraps ErrMalformed or ErrUnknownType. Properties that this
// build does not know are passed over.
func Decode(body []byte) (Event, error) {
	if e, ok := decodeOwn(body); ok {
		return e, nil
	}
	return decodeAny(body)
}

// decodeAny reads an event whoever wrote it, and says what is wrong with it.
func decodeAny(body []byte) (Event, error) {
	var w wireEvent
	d := json.NewDecoder(bytes.NewReader(body))
	if err := d.Decode(&w); err != nil {
		return Event{}, fmt.Errorf("%w: %v", ErrMalformed, err)
	}
	if _, err := d.Token(); err != io.EOF {
		return Event{}, fmt.Errorf("%w: something follows the JSON object", ErrMalformed)
	}
	return w.event()
}

// decodeOwn reads an event as Encode writes it, at a third of what decodeAny costs: it finds the envelope's parts by
// their brackets and reads each once. It reports false for anything else, and whatever it reads decodeAny reads the
// same: it takes no key twice or in another spelling, no white space, no escapes and nothing but ASCII in the envelope.
func decodeOwn(body []byte) (Event, bool) {
	var w wireEvent
	var b Body
	content := false
	c := cursor{rest: body}
	c.object(func(key []byte) {
		switch string(key) {
		case "context":
			c.context(&w)
			b, _ = w.body()
		case "subject":
			c.object(func(key []byte) {
				switch string(key) {
				case "id":
					w.Subject.ID = c.text()
				case "source":
					w.Subject.Source = c.text()
				case "content":
					if c.foreign = c.foreign || b == nil; !c.foreign {
						c.read(b)
					}
					content = true
				default:
					c.foreign = true
				}
			})
		case "customData":
			c.customData(b)
		case "customDataContentType":
			c.text()
		default:
			c.foreign = true
		}
	})
	if c.foreign || len(c.rest) > 0 || !content {
		return Event{}, false
	}
	e, err := w.with(b)
	return e, err == nil
}

// customData reads what the type has there; that of a type which has nothing is passed over.
func (c *cursor) customData(b Body) {
	if c.foreign = c.foreign || b == nil; c.foreign {
		return
	}
	if custom := b.custom(); custom != nil {
		c.read(custom)
		return
	}
	text := c.bracketed('{')
	c.foreign = c.foreign || !json.Valid(text)
}

// context reads what decides where an event belongs.
func (c *cursor) context(w *wireEvent) {
	c.object(func(key []byte) {
		switch string(key) {
		case "specversion":
			w.Context.SpecVersion = c.known(specVersions)
		case "id":
			w.Context.ID = c.text()
		case "source":
			w.Context.Source = c.known(sources)
		case "type":
			w.Context.Type = Type(c.known(typeNames))
		case "timestamp":
			w.Context.Timestamp = c.text()
		case "chainId":
			w.Context.ChainID = c.text()
		case "links":
			c.links(&w.Context.Links)
		default:
			c.foreign = true
		}
	})
}

// A link to the event before, as Path makes it, is what nearly every event has and nothing else.
const (
	pathHead = `[{"linkType":"PATH","from":{"contextId":"`
	pathTail = `"},"tags":{}}]`
)

func (c *cursor) links(links *[]Link) {
	text := c.bracketed('[')
	if id, ok := bytes.CutPrefix(text, []byte(pathHead)); ok {
		if id, ok = bytes.CutSuffix(id, []byte(pathTail)); ok && plain(id) {
			*links = []Link{Path(string(id))}
			return
		}
	}
	var others []Link
	if !c.foreign && json.Unmarshal(text, &others) != nil {
		c.foreign = true
	}
	*links = others
}

// cursor reads compact JSON. Once something is foreign to it, it goes no further and what it has read is void.
type cursor struct {
	rest    []byte
	foreign bool
}

// deepest is how many brackets may be open, far below what encoding/json allows.
const deepest = 100

// object calls member with each key, which must read the value.
func (c *cursor) object(member func(key []byte)) {
	seen := make([][]byte, 0, 8)
	for c.skip('{'); !c.foreign; c.skip(',') {
		key := c.plainText()
		for _, before := range seen {
			c.foreign = c.foreign || bytes.Equal(before, key)
		}
		seen = append(seen, key)
		if c.skip(':'); c.foreign {
			return
		}
		if member(key); len(c.rest) > 0 && c.rest[0] == '}' {
			c.rest = c.rest[1:]
			return
		}
	}
}

func (c *cursor) skip(b byte) {
	if c.foreign || len(c.rest) == 0 || c.rest[0] != b {
		c.foreign = true
		return
	}
	c.rest = c.rest[1:]
}

// Texts that nearly every event has, by themselves.
var (
	specVersions = map[string]string{SpecVersion: SpecVersion}
	sources      = textsOf(Writers, func(w Writer) string { return sourceOf(w) })
	typeNames    = textsOf(slices.Collect(maps.Keys(bodies)), func(t Type) string { return string(t) })
)

func textsOf[T any](all []T, text func(T) string) map[string]string {
	texts := map[string]string{}
	for _, one := range all {
		texts[text(one)] = text(one)
	}
	return texts
}

// known reads a string of plain characters that is most likely one of those that are known, and then makes no other.
func (c *cursor) known(texts map[string]string) string {
	text := c.plainText()
	if known, ok := texts[string(text)]; ok {
		return known
	}
	return string(text)
}

// text reads a string of plain characters.
func (c *cursor) text() string { return string(c.plainText()) }

func (c *cursor) plainText() []byte {
	c.skip('"')
	end := bytes.IndexByte(c.rest, '"')
	if c.foreign || end < 0 || !plain(c.rest[:end]) {
		c.foreign = true
		return nil
	}
	text := c.rest[:end]
	c.rest = c.rest[end+1:]
	return text
}

// plain reports whether a string's characters are what its JSON is.
func plain[T string | []byte](text T) bool {
	for i := range len(text) {
		if b := text[i]; b < ' ' || b >= 0x7f || b == '"' || b == '\\' {
			return false
		}
	}
	return true
}

// bracketed returns a value that begins with a bracket, up to the one that closes it. Whether it is JSON in between is
// for whoever reads it.
func (c *cursor) bracketed(open byte) []byte {
	if c.foreign || len(c.rest) == 0 || c.rest[0] != open {
		c.foreign = true
		return nil
	}
	depth, quoted := 0, false
	for i := 0; i < len(c.rest); i++ {
		switch b := c.rest[i]; {
		case quoted && b == '\\':
			i++
		case b == '"':
			quoted = !quoted
		case quoted:
		case b == '{' || b == '[':
			depth++
		case b == '}' || b == ']':
			depth--
		}
		if depth > deepest {
			break
		}
		if depth == 0 {
			value := c.rest[:i+1]
			c.rest = c.rest[i+1:]
			return value
		}
	}
	c.foreign = true
	return nil
}

// body returns an empty body of the event's type.
func (w *wireEvent) body() (Body, error) {
	newBody, ok := bodies[w.Context.Type]
	if !ok {
		if w.Context.Type == "" {
			return nil, fmt.Errorf("%w: context.type is missing", ErrMalformed)
		}
		return nil, &UnknownTypeError{Type: w.Context.Type}
	}
	switch w.Context.SpecVersion {
	case SpecVersion:
	case "":
		return nil, fmt.Errorf("%w: context.specversion is missing", ErrMalformed)
	default:
		return nil, &UnknownTypeError{Type: w.Context.Type, SpecVersion: w.Context.SpecVersion}
	}
	return newBody(), nil
}

// event makes an event of its parts.
func (w *wireEvent) event() (Event, error) {
	b, err := w.body()
	if err != nil {
		return Event{}, err
	}
	e, err := w.with(b)
	switch {
	case err != nil:
		return Event{}, err
	case w.Subject.Content == nil:
		return Event{}, fmt.Errorf("%w: subject.content is required", ErrMalformed)
	}
	if err := json.Unmarshal(w.Subject.Content, b); err != nil {
		return Event{}, fmt.Errorf("%w: content of %s: %v", ErrMalformed, w.Context.Type, err)
	}
	if c := b.custom(); c != nil && w.CustomData != nil {
		if err := json.Unmarshal(w.CustomData, c); err != nil {
			return Event{}, fmt.Errorf("%w: customData of %s: %v", ErrMalformed, w.Context.Type, err)
		}
	}
	return e, nil
}

// with makes an event of the envelope's parts and a body.
func (w *wireEvent) with(b Body) (Event, error) {
	at, err := time.Parse(time.RFC3339Nano, w.Context.Timestamp)
	if err != nil {
		return Event{}, fmt.Errorf("%w: timestamp: %v", ErrMalformed, err)
	}
	if w.Context.ID == "" || w.Subject.ID == "" || w.Context.Source == "" {
		return Event{}, fmt.Errorf("%w: context.id, context.source and subject.id are required", ErrMalformed)
	}
	b.setSubjectID(w.Subject.ID)
	return Event{
		ID: w.Context.ID, Source: w.Context.Source, Time: at.UTC(),
		ChainID: w.Context.ChainID, Links: w.Context.Links, Body: b,
	}, nil
}
