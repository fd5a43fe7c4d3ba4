package conformance_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"towpath.dev/e2e/conformance"
)

// Every golden, of a type of CDEvents' own or of ours, is read by the official SDK and written again without loss.
func TestGoldensRoundTripThroughTheSDK(t *testing.T) {
	files, err := filepath.Glob("../../events/testdata/*.json")
	if err != nil || len(files) < 40 {
		t.Fatalf("%d goldens: %v", len(files), err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			body, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if err := conformance.RoundTrip(body); err != nil {
				t.Errorf("%v\n%s", err, body)
			}
		})
	}
}

// A round trip notices what the SDK does not know.
func TestRoundTripNotices(t *testing.T) {
	for name, change := range map[string][2]string{
		"a field that CDEvents has not":  {`"content":{`, `"content":{"colour":"red",`},
		"a type that CDEvents has not":   {"artifact.packaged", "artifact.packed"},
		"a version that the SDK has not": {"0.3.0", "1.3.0"},
		"a time that is none":            {"2026-03-20T14:27:05.315384Z", "yesterday"},
	} {
		changed := strings.Replace(good, change[0], change[1], 1)
		if changed == good {
			t.Fatalf("%s: the sample has no %s", name, change[0])
		}
		if err := conformance.RoundTrip([]byte(changed)); err == nil {
			t.Errorf("%s: not noticed", name)
		}
	}
	if err := conformance.RoundTrip([]byte(good)); err != nil {
		t.Error(err)
	}
}
