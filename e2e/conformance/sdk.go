package conformance

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"

	sdk "github.com/cdevents/sdk-go/pkg/api"
	v05 "github.com/cdevents/sdk-go/pkg/api/v05"
)

// RoundTrip has the official SDK read an event and write it again, and returns what changed on the way; nil: nothing.
// Two faults of the SDK are passed over: it writes a link's empty tags as null, which its own schema refuses, and it cannot
// say what type an event of a custom one that it has read is of, though it writes that again.
func RoundTrip(body []byte) error {
	var before struct {
		Context struct{ Type string }
	}
	if err := json.Unmarshal(body, &before); err != nil {
		return fmt.Errorf("not a CDEvent: %w", err)
	}
	event, err := v05.NewFromJsonBytes(body)
	if err != nil {
		return fmt.Errorf("the SDK does not read it: %w", err)
	}
	if got := event.GetType().String(); got != before.Context.Type && !strings.HasPrefix(before.Context.Type, "dev.cdeventsx.") {
		return fmt.Errorf("the SDK takes it for %s, not %s", got, before.Context.Type)
	}
	again, err := sdk.AsJsonBytes(event)
	if err != nil {
		return fmt.Errorf("the SDK does not write it: %w", err)
	}
	var written, read any
	err = errors.Join(json.Unmarshal(body, &written), json.Unmarshal([]byte(strings.ReplaceAll(string(again), `"tags":null`, `"tags":{}`)), &read))
	if err == nil && !reflect.DeepEqual(written, read) {
		err = fmt.Errorf("the SDK changed it to %s", again)
	}
	return err
}
