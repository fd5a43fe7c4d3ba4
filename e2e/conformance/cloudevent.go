package conformance

import (
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
)

var attributeName = regexp.MustCompile(`^[a-z0-9]{1,20}$`)

// CloudEvent checks an event in CloudEvents 1.0's structured JSON mode: its attributes, and that they mirror the CDEvent
// in it, which it returns.
func CloudEvent(line []byte) (data json.RawMessage, err error) {
	var attributes map[string]json.RawMessage
	if err := json.Unmarshal(line, &attributes); err != nil {
		return nil, fmt.Errorf("no CloudEvent: %w", err)
	}
	text := map[string]string{}
	for name, value := range attributes {
		if name == "data" {
			data = value
			continue
		}
		var s string
		if !attributeName.MatchString(name) || json.Unmarshal(value, &s) != nil || s == "" {
			return nil, fmt.Errorf("attribute %q is %s", name, value)
		}
		text[name] = s
	}
	var event struct {
		Context struct {
			ID, Source, Type, Timestamp, ChainID string
		}
		Subject struct{ ID string }
	}
	if err := json.Unmarshal(data, &event); err != nil {
		return nil, fmt.Errorf("data: %w", err)
	}
	want := map[string]string{
		"specversion": "1.0", "datacontenttype": "application/json", "id": event.Context.ID, "source": event.Context.Source,
		"type": event.Context.Type, "subject": event.Subject.ID, "time": event.Context.Timestamp, "chainid": event.Context.ChainID,
	}
	for _, name := range slices.Sorted(maps.Keys(want)) {
		if text[name] != want[name] {
			return nil, fmt.Errorf("attribute %s is %q, the CDEvent says %q", name, text[name], want[name])
		}
	}
	return data, nil
}
