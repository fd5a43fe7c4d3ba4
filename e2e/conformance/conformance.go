// Package conformance judges events by CDEvents 0.5.1's own JSON schemas, which the CDEvents SDK embeds.
//
// The SDK serves as an oracle only: nothing that Towpath ships is linked with it. Formats (date-time, uri) are
// asserted, which the SDK itself does not do. Beside the schemas it holds events to what the schemas leave open
// and Towpath's contract fixes: UUIDs, our custom type names, artifact ids, links with tags, no schemaUri.
package conformance

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"

	cdevents "github.com/cdevents/sdk-go/pkg/api"
	"github.com/santhosh-tekuri/jsonschema/v6"
)

// SpecVersion is the version of CDEvents that every event must claim and obey.
const SpecVersion = "0.5.1"

const schemaRoot = "https://cdevents.dev/" + SpecVersion + "/schema/"

var (
	customType = regexp.MustCompile(`^dev\.cdeventsx\.towpath-[a-z]+\.[a-z]+\.[0-9]\.[0-9]\.[0-9]$`)
	uuid       = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$`)
	artifactID = regexp.MustCompile(`^pkg:oci/[^@?#/]+@sha256:[0-9a-f]{64}(\?[^#]*)?$`)
)

// Oracle holds the compiled schemas. It may be used by several goroutines.
type Oracle struct {
	byType map[string]*jsonschema.Schema
	custom *jsonschema.Schema
}

// New compiles the schemas of SpecVersion. It takes about a second.
func New() (*Oracle, error) {
	compiler := jsonschema.NewCompiler()
	compiler.AssertFormat()
	for id, text := range cdevents.SchemasById {
		document, err := jsonschema.UnmarshalJSON(strings.NewReader(text))
		if err != nil {
			return nil, fmt.Errorf("reading schema %s: %w", id, err)
		}
		if err := compiler.AddResource(id, document); err != nil {
			return nil, fmt.Errorf("adding schema %s: %w", id, err)
		}
	}
	oracle := &Oracle{byType: map[string]*jsonschema.Schema{}}
	for id, text := range cdevents.SchemasById {
		if !strings.HasPrefix(id, schemaRoot) || strings.Contains(id, "/links/") {
			continue
		}
		schema, err := compiler.Compile(id)
		if err != nil {
			return nil, fmt.Errorf("compiling schema %s: %w", id, err)
		}
		if id == schemaRoot+"custom" {
			oracle.custom = schema
			continue
		}
		types, err := typesOf(text)
		if err != nil {
			return nil, fmt.Errorf("schema %s: %w", id, err)
		}
		for _, name := range types {
			oracle.byType[name] = schema
		}
	}
	if oracle.custom == nil || len(oracle.byType) < 40 {
		return nil, fmt.Errorf("the SDK holds %d schemas of CDEvents %s, which cannot be all", len(oracle.byType), SpecVersion)
	}
	return oracle, nil
}

func typesOf(schema string) ([]string, error) {
	var document struct {
		Properties struct {
			Context struct {
				Properties struct {
					Type struct {
						Enum []string `json:"enum"`
					} `json:"type"`
				} `json:"properties"`
			} `json:"context"`
		} `json:"properties"`
	}
	if err := json.Unmarshal([]byte(schema), &document); err != nil {
		return nil, err
	}
	types := document.Properties.Context.Properties.Type.Enum
	if len(types) == 0 {
		return nil, errors.New("names no context.type")
	}
	return types, nil
}

type envelope struct {
	Context struct {
		SpecVersion string          `json:"specversion"`
		ID          string          `json:"id"`
		Type        string          `json:"type"`
		ChainID     *string         `json:"chainId"`
		SchemaURI   json.RawMessage `json:"schemaUri"`
		Links       []struct {
			Tags json.RawMessage `json:"tags"`
		} `json:"links"`
	} `json:"context"`
	Subject struct {
		Content map[string]json.RawMessage `json:"content"`
	} `json:"subject"`
}

// Check returns everything that is wrong with one event's JSON body, joined; nil for an event that conforms.
func (o *Oracle) Check(body []byte) error {
	document, err := jsonschema.UnmarshalJSON(bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("not JSON: %w", err)
	}
	var event envelope
	if err := json.Unmarshal(body, &event); err != nil {
		return fmt.Errorf("not a CDEvent: %w", err)
	}
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }

	if event.Context.SpecVersion != SpecVersion {
		fault("context.specversion is %q, not %s", event.Context.SpecVersion, SpecVersion)
	}
	schema := o.byType[event.Context.Type]
	if strings.HasPrefix(event.Context.Type, "dev.cdeventsx.") {
		schema = o.custom
		if !customType.MatchString(event.Context.Type) {
			fault("context.type %q does not match %s", event.Context.Type, customType)
		}
	}
	if schema == nil {
		fault("context.type %q is no type of CDEvents %s", event.Context.Type, SpecVersion)
	} else if err := schema.Validate(document); err != nil {
		fault("schema: %w", err)
	}
	if !uuid.MatchString(event.Context.ID) {
		fault("context.id %q is no UUID", event.Context.ID)
	}
	if chain := event.Context.ChainID; chain != nil && !uuid.MatchString(*chain) {
		fault("context.chainId %q is no UUID", *chain)
	}
	if event.Context.SchemaURI != nil {
		fault("context.schemaUri %s is sent, and nothing resolves it", event.Context.SchemaURI)
	}
	for i, link := range event.Context.Links {
		if !bytes.HasPrefix(link.Tags, []byte("{")) {
			fault("context.links[%d].tags is %q, not an object", i, link.Tags)
		}
	}
	if raw, ok := event.Subject.Content["artifactId"]; ok {
		var id string
		if json.Unmarshal(raw, &id) != nil || !artifactID.MatchString(id) {
			fault("subject.content.artifactId %s is no purl of an image by digest", raw)
		}
	}
	if len(faults) > 0 {
		return fmt.Errorf("%s %s: %w", event.Context.Type, event.Context.ID, errors.Join(faults...))
	}
	return nil
}
