package events

import (
	"bytes"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// goldens are one event of each type, as Encode wrote it.
func goldens(t testing.TB) (all [][]byte) {
	t.Helper()
	paths, err := filepath.Glob("testdata/*.json")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no goldens: %v", err)
	}
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, bytes.TrimSpace(text))
	}
	return all
}

// same says how the quick way of reading differs from the thorough one; "" where it does not, or does not read at all.
func same(body []byte) string {
	quick, ok := decodeOwn(body)
	if !ok {
		return ""
	}
	thorough, err := decodeAny(body)
	switch {
	case err != nil:
		return "the quick way reads what is no event: " + err.Error()
	case !reflect.DeepEqual(quick, thorough):
		return "the quick way reads something else"
	}
	return ""
}

func TestBothWaysOfDecodingReadTheSame(t *testing.T) {
	for _, golden := range goldens(t) {
		if _, ok := decodeOwn(golden); !ok {
			t.Errorf("the quick way does not read %s", golden)
		}
		if wrong := same(golden); wrong != "" {
			t.Errorf("%s: %s", wrong, golden)
		}
		for i := range golden { // with each byte lost, or another, or more
			for _, other := range [][]byte{
				append(bytes.Clone(golden[:i]), golden[i+1:]...),
				append(append(bytes.Clone(golden[:i]), '\\'), golden[i+1:]...),
				append(append(bytes.Clone(golden[:i]), golden[i]^0x20), golden[i+1:]...),
				append(append(bytes.Clone(golden[:i]), '"'), golden[i:]...),
				golden[:i],
			} {
				if wrong := same(other); wrong != "" {
					t.Fatalf("%s: %s", wrong, other)
				}
			}
		}
	}
	golden := string(goldens(t)[0])
	for name, other := range map[string]string{
		"a part twice":        strings.Replace(golden, `"context":{`, `"context":{"id":"x"},"context":{`, 1),
		"a key twice":         strings.Replace(golden, `"id":`, `"id":"x","id":`, 1),
		"a key unlike":        strings.Replace(golden, `"id":`, `"ID":"x","id":`, 1),
		"another key":         strings.Replace(golden, `"id":`, `"more":"x","id":`, 1),
		"no content":          strings.Replace(golden, `"content":{`, `"content":null,"contents":{`, 1),
		"escapes":             strings.Replace(golden, `"id":"`, `"id":"\u0041`, 1),
		"not ASCII":           strings.Replace(golden, `"id":"`, `"id":"é`, 1),
		"white space":         strings.Replace(golden, `"id":`, ` "id": `, 1),
		"too deep":            strings.Replace(golden, `"content":{`, `"content":{"x":`+strings.Repeat("[", 9999)+strings.Repeat("]", 9999)+`,`, 1),
		"something behind":    golden + "{}",
		"something no JSON":   golden + "x",
		"white space behind":  golden + " \n",
		"mismatched brackets": strings.Replace(golden, `"content":{`, `"content":{"x":[},`, 1),
	} {
		if _, ok := decodeOwn([]byte(other)); ok {
			t.Errorf("%s: read by the quick way", name)
		}
	}
	if _, err := Decode([]byte(golden + "x")); err == nil {
		t.Error("an event with something behind it was read")
	}
}

func BenchmarkDecode(b *testing.B) {
	all := goldens(b)
	for name, decode := range map[string]func([]byte) (Event, error){"own": Decode, "any": decodeAny} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for i := range b.N {
				if _, err := decode(all[i%len(all)]); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
