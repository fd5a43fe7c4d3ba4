package gateway

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strings"
	"time"

	"towpath.dev/events"
)

const (
	// maxCommand is the largest command that comes in as an event, in bytes of its body.
	maxCommand = 64 << 10
	// maxAttribute is the longest attribute of one, in bytes.
	maxAttribute = 1 << 10
	// window is how far the time of a command may be from the gateway's, either way: what somebody recorded cannot be
	// sent later, and within it the command's id is known.
	window = 300 * time.Second

	structuredType = "application/cloudevents+json"
	binaryType     = "application/json"
)

// message is a CloudEvent as it came in, over HTTP or the bus.
type message struct {
	contentType string
	attribute   func(name string) string // binary mode: "ce-id" and so on, undecoded; empty where it is missing
	body        []byte
}

// saying is a command as somebody said it.
type saying struct {
	order      order
	onBehalfOf string // external name of the person who said it; empty: whoever sent it
	at         time.Time
	dryRun     bool // it is only to be said what it would do
}

// said is the content of a command.received event that comes in. Who says it and where is found out, not believed.
type said struct {
	Verb        string      `json:"verb"`
	App         events.Slug `json:"app"`
	Run         int         `json:"run"`
	Stage       string      `json:"stage"`
	Environment events.Slug `json:"environment"`
	Digest      string      `json:"digest"`
	Reason      string      `json:"reason"`
	Rebuild     bool        `json:"rebuild"`
	Policy      string      `json:"policy"`
	AllStuck    bool        `json:"allStuck"`
	WithSecrets bool        `json:"withSecrets"`
	Message     uint64      `json:"message"`
	Attempt     int         `json:"attempt"`
	Overrule    bool        `json:"overrule"`
	DryRun      bool        `json:"dryRun"` // only say what it would do
	OnBehalfOf  string      `json:"onBehalfOf"`
}

// cdevent is what a CDEvent of this type may hold.
type cdevent struct {
	Context struct {
		SpecVersion string            `json:"specversion"`
		ID          string            `json:"id"`
		Source      string            `json:"source"`
		Type        string            `json:"type"`
		Timestamp   string            `json:"timestamp"`
		SchemaURI   string            `json:"schemaUri"`
		ChainID     string            `json:"chainId"`
		Links       []json.RawMessage `json:"links"`
	} `json:"context"`
	Subject struct {
		ID      string          `json:"id"`
		Source  string          `json:"source"`
		Content json.RawMessage `json:"content"`
	} `json:"subject"`
	CustomData            json.RawMessage `json:"customData"`
	CustomDataContentType string          `json:"customDataContentType"`
}

const (
	readingEvent = "reading the event"
	howToSend    = "GET /openapi.json describes it, and the README's \"Bots and chat\" has an example"
)

func badEvent(format string, a ...any) *problem {
	return invalid(readingEvent, "", fmt.Sprintf(format, a...), howToSend)
}

// readSaying reads a command from a CloudEvent in binary or structured mode.
func readSaying(m message) (saying, error) {
	if len(m.body) > maxCommand {
		return saying{}, tooLarge()
	}
	media, parameters, err := mime.ParseMediaType(m.contentType)
	if charset := parameters["charset"]; err != nil || charset != "" && !strings.EqualFold(charset, "utf-8") {
		return saying{}, wrongMode("its Content-Type is %.80q", m.contentType)
	}
	attributes, data := binaryAttributes(m), m.body
	switch {
	case media == structuredType:
		if attributes, data, err = structured(m.body); err != nil {
			return saying{}, err
		}
	case media == binaryType && attributes("specversion") == "":
		return saying{}, wrongMode("it has no ce-specversion header, so it is no CloudEvent in binary mode")
	case media != binaryType:
		return saying{}, wrongMode("its Content-Type is %.80q", media)
	}
	return readCommand(attributes, data)
}

func tooLarge() *problem {
	return &problem{
		Status: http.StatusRequestEntityTooLarge, What: readingEvent, Why: fmt.Sprintf("it has more than %d bytes", maxCommand),
		Do: "shorten its reason", Code: codeTooLarge,
	}
}

func wrongMode(format string, a ...any) *problem {
	return &problem{
		Status: http.StatusUnsupportedMediaType, What: readingEvent, Why: fmt.Sprintf(format, a...), Code: codeInvalid,
		Do: "send " + binaryType + " with ce- headers, or one CloudEvent as " + structuredType + "; batches are not taken",
	}
}

// binaryAttributes are headers, whose values are percent-encoded and may be quoted.
func binaryAttributes(m message) func(string) string {
	return func(name string) string {
		value := m.attribute("ce-" + name)
		if len(value) > 1 && value[0] == '"' && value[len(value)-1] == '"' {
			value = strings.NewReplacer(`\"`, `"`, `\\`, `\`).Replace(value[1 : len(value)-1])
		}
		if decoded, err := url.PathUnescape(value); err == nil {
			return decoded
		}
		return value
	}
}

// structured reads an envelope, whose other members are extensions.
func structured(body []byte) (attributes func(string) string, data []byte, err error) {
	var envelope map[string]json.RawMessage
	if err := decodeWhole(body, &envelope, false); err != nil {
		return nil, nil, badEvent("%v", err)
	}
	if envelope["data_base64"] != nil {
		return nil, nil, badEvent("its data is base64: send the CDEvent as the JSON object data")
	}
	texts := map[string]string{}
	for name, raw := range envelope {
		var text string
		if name == "data" || json.Unmarshal(raw, &text) != nil {
			continue
		}
		texts[name] = text
	}
	if media, _, err := mime.ParseMediaType(texts["datacontenttype"]); texts["datacontenttype"] != "" && (err != nil || media != binaryType) {
		return nil, nil, badEvent("datacontenttype is %.80q, not %s", texts["datacontenttype"], binaryType)
	}
	if len(envelope["data"]) == 0 || envelope["data"][0] != '{' {
		return nil, nil, badEvent("data is not the CDEvent as a JSON object")
	}
	return func(name string) string { return texts[name] }, envelope["data"], nil
}

// readCommand reads the CDEvent and holds the attributes to it.
func readCommand(attribute func(string) string, data []byte) (saying, error) {
	if version := attribute("specversion"); version != "1.0" {
		return saying{}, badEvent("specversion is %.20q, not 1.0", version)
	}
	typ := attribute("type")
	if typ != string(events.TypeCommandReceived) {
		return saying{}, refused(readingEvent, "", fmt.Sprintf("type %.100q cannot be sent here", typ), "send "+string(events.TypeCommandReceived))
	}
	var event cdevent
	if err := decodeWhole(data, &event, true); err != nil {
		return saying{}, badEvent("%v", err)
	}
	for _, mirror := range []struct{ name, of, value string }{
		{"id", "context.id", event.Context.ID}, {"source", "context.source", event.Context.Source}, {"type", "context.type", event.Context.Type},
		{"subject", "subject.id", event.Subject.ID}, {"time", "context.timestamp", event.Context.Timestamp},
	} {
		switch got := attribute(mirror.name); {
		case got == "" || mirror.value == "":
			return saying{}, badEvent("%s and %s must both be given", mirror.name, mirror.of)
		case len(got) > maxAttribute:
			return saying{}, badEvent("%s has more than %d bytes", mirror.name, maxAttribute)
		case got != mirror.value:
			return saying{}, badEvent("%s is %.80q, but %s is %.80q: they must be the same", mirror.name, got, mirror.of, mirror.value)
		}
	}
	if v := event.Context.SpecVersion; v != events.SpecVersion {
		return saying{}, badEvent("context.specversion is %.20q, not %s", v, events.SpecVersion)
	}
	if _, err := url.Parse(event.Context.Source); err != nil {
		return saying{}, badEvent("context.source is no URI reference")
	}
	at, err := time.Parse(time.RFC3339Nano, event.Context.Timestamp)
	if err != nil {
		return saying{}, badEvent("context.timestamp %.80q is not RFC 3339", event.Context.Timestamp)
	}
	if len(event.CustomData) > 0 || event.CustomDataContentType != "" {
		return saying{}, badEvent("it has customData, which a command does not have")
	}
	var content said
	if err := decodeWhole(event.Subject.Content, &content, true); err != nil {
		return saying{}, badEvent("subject.content: %v", err)
	}
	return saying{order: content.order(event.Subject.ID), onBehalfOf: content.OnBehalfOf, at: at, dryRun: content.DryRun}, nil
}

func (s said) order(id string) order {
	return order{
		ID: id, Verb: s.Verb, App: s.App, Run: s.Run, Stage: s.Stage, Env: s.Environment, Digest: s.Digest, Reason: s.Reason,
		Rebuild: s.Rebuild, Policy: s.Policy, AllStuck: s.AllStuck, WithSecrets: s.WithSecrets, Attempt: s.Attempt, Overrule: s.Overrule,
		Message: s.Message,
	}
}

// decodeWhole decodes one JSON object and nothing else.
func decodeWhole(data []byte, into any, strict bool) error {
	decoder := json.NewDecoder(bytes.NewReader(data))
	if strict {
		decoder.DisallowUnknownFields()
	}
	if trimmed := bytes.TrimLeft(data, " \t\r\n"); len(trimmed) == 0 || trimmed[0] != '{' {
		return errors.New("it is not a JSON object")
	}
	if err := decoder.Decode(into); err != nil {
		return errors.New(strings.TrimPrefix(err.Error(), "json: "))
	}
	if _, err := decoder.Token(); err != io.EOF {
		return errors.New("something follows the JSON object")
	}
	return nil
}

// timely refuses what was said too long ago, or is yet to be said.
func (s saying) timely(now time.Time) error {
	off := now.Sub(s.at)
	if off.Abs() <= window {
		return nil
	}
	how := "old"
	if off < 0 {
		how = "ahead of the gateway's clock"
	}
	return refused("commanding", s.order.ID, fmt.Sprintf("its time is %s %s; %s either way is allowed", off.Abs().Round(time.Second), how, window),
		"say it again with the present time, and look at the sender's clock")
}
