package conformance_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"towpath.dev/e2e/conformance"
)

const good = `{
 "context": {"specversion":"0.5.1","id":"271069a8-fc18-44f1-b38f-9d70a1695819","source":"/towpath/build",
  "type":"dev.cdevents.artifact.packaged.0.3.0","timestamp":"2026-03-20T14:27:05.315384Z",
  "chainId":"371069a8-fc18-44f1-b38f-9d70a1695819",
  "links":[{"linkType":"PATH","from":{"contextId":"471069a8-fc18-44f1-b38f-9d70a1695819"},"tags":{}}]},
 "subject": {"id":"pkg:oci/hello@sha256:0b31b1c02ff458ad9b7b81cbdf8f028bd54699fa151f221d1e8de6817db93427",
  "content":{"change":{"id":"9d70a1695819","source":"/git/hello"}}}}`

func oracle(t *testing.T) *conformance.Oracle {
	t.Helper()
	o, err := conformance.New()
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// The oracle has to notice each fault, or its silence about our events means nothing.
func TestOracleNotices(t *testing.T) {
	o := oracle(t)
	if err := o.Check([]byte(good)); err != nil {
		t.Fatalf("a conforming event is refused: %v", err)
	}
	for name, change := range map[string][2]string{
		"not JSON":             {`{`, ``},
		"another version":      {`"specversion":"0.5.1"`, `"specversion":"0.4.1"`},
		"unknown type":         {`artifact.packaged.0.3.0`, `artifact.packed.0.3.0`},
		"old type version":     {`artifact.packaged.0.3.0`, `artifact.packaged.0.2.0`},
		"required content":     {`"change":{"id":"9d70a1695819","source":"/git/hello"}`, ``},
		"extra property":       {`"content":{`, `"type":"artifact","content":{`},
		"timestamp format":     {`2026-03-20T14:27:05.315384Z`, `20 March 2026`},
		"source format":        {`"/towpath/build"`, `"::not a uri::"`},
		"id is a UUID":         {`271069a8-fc18-44f1-b38f-9d70a1695819`, `42`},
		"chain is a UUID":      {`371069a8-fc18-44f1-b38f-9d70a1695819`, `hello/1`},
		"links have tags":      {`,"tags":{}`, ``},
		"tags are not null":    {`"tags":{}`, `"tags":null`},
		"no schemaUri":         {`"links":`, `"schemaUri":"https://towpath.dev/schema","links":`},
		"custom type's tool":   {`dev.cdevents.artifact.packaged.0.3.0`, `dev.cdeventsx.other-slot.taken.0.1.0`},
		"custom type's case":   {`dev.cdevents.artifact.packaged.0.3.0`, `dev.cdeventsx.towpath-Slot.taken.0.1.0`},
		"custom type's digits": {`dev.cdevents.artifact.packaged.0.3.0`, `dev.cdeventsx.towpath-slot.taken.0.10.0`},
		"artifact by tag":      {`"content":{`, `"content":{"artifactId":"pkg:oci/hello?tag=latest",`},
	} {
		t.Run(name, func(t *testing.T) {
			if !strings.Contains(good, change[0]) {
				t.Fatalf("the sample has no %s", change[0])
			}
			if err := o.Check([]byte(strings.Replace(good, change[0], change[1], 1))); err == nil {
				t.Error("not noticed")
			}
		})
	}
}

// Every golden of the contract has the shape that its schema asks for: nothing missing, nothing extra. Goldens
// carry the word "text" in every string; where a schema wants a certain form, a value of that form takes its place.
func TestGoldensConform(t *testing.T) {
	o := oracle(t)
	files, err := filepath.Glob("../../events/testdata/*.json")
	if err != nil || len(files) == 0 {
		t.Fatalf("no goldens in events/testdata: %v", err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			body, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var event map[string]any
			if err := json.Unmarshal(body, &event); err != nil {
				t.Fatal(err)
			}
			fill(event, "")
			if body, err = json.Marshal(event); err != nil {
				t.Fatal(err)
			}
			if err := o.Check(body); err != nil {
				t.Error(err)
			}
		})
	}
}

var forms = map[string]string{
	"content.artifactId": "pkg:oci/hello@sha256:0b31b1c02ff458ad9b7b81cbdf8f028bd54699fa151f221d1e8de6817db93427",
	"content.outcome":    "success",
	"content.uri":        "https://towpath.example/runs/hello/1",
	"testCase.type":      "functional",
}

func fill(object map[string]any, parent string) {
	for key, value := range object {
		switch value := value.(type) {
		case map[string]any:
			fill(value, key)
		case string:
			if form, ok := forms[parent+"."+key]; ok && value == "text" {
				object[key] = form
			}
		}
	}
}
