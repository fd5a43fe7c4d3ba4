package conformance_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	sdk "github.com/cdevents/sdk-go/pkg/api"
	v05 "github.com/cdevents/sdk-go/pkg/api/v05"
)

// Every golden of a type of CDEvents' own is read by the official SDK and written again without loss. Where
// the SDK is wrong is listed: it writes a link's empty tags as null, which its own schema refuses, and it
// does not know custom types by name, so that those are not its to read.
func TestGoldensRoundTripThroughTheSDK(t *testing.T) {
	files, err := filepath.Glob("../../events/testdata/cdevents.*.json")
	if err != nil || len(files) < 15 {
		t.Fatalf("%d goldens: %v", len(files), err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			body, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			event, err := v05.NewFromJsonBytes(body)
			if err != nil {
				t.Fatalf("the SDK does not read it: %v", err)
			}
			if got, want := event.GetType().String(), "dev."+strings.TrimSuffix(filepath.Base(file), ".json"); got != want {
				t.Errorf("the SDK takes it for %s, not %s", got, want)
			}
			again, err := sdk.AsJsonBytes(event)
			if err != nil {
				t.Fatalf("the SDK does not write it: %v", err)
			}
			var before, after any
			if err := json.Unmarshal(body, &before); err != nil {
				t.Fatal(err)
			}
			if err := json.Unmarshal([]byte(strings.ReplaceAll(string(again), `"tags":null`, `"tags":{}`)), &after); err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(before, after) {
				t.Errorf("the SDK changed it:\n%s\n%s", body, again)
			}
		})
	}
}
