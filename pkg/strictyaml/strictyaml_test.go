package strictyaml

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"
)

var limits = Limits{Size: 1 << 10, Depth: 4, Nodes: 100}

// read applies one method to the value of the key "k".
func read(t *testing.T, value string, method func(r *Reader, n *yaml.Node, key string)) string {
	t.Helper()
	r, root := Open("f.yaml", []byte("k: "+value+"\n"), limits)
	if root == nil {
		t.Fatal(r.Err())
	}
	r.Fields(root, "", map[string]Field{"k": func(n *yaml.Node, key string) { method(r, n, key) }})
	if err := r.Err(); err != nil {
		return err.Error()
	}
	return ""
}

func TestValues(t *testing.T) {
	var got any
	size := func(r *Reader, n *yaml.Node, key string) { got = r.Size(n, key, 1<<10, 1<<40) }
	text := func(r *Reader, n *yaml.Node, key string) { got, _ = r.Text(n, key, 10) }
	number := func(r *Reader, n *yaml.Node, key string) { got = r.Integer(n, key, 1, 10) }
	decimal := func(r *Reader, n *yaml.Node, key string) { got = r.Decimal(n, key, 0.5, 10) }
	truth := func(r *Reader, n *yaml.Node, key string) { got = r.Bool(n, key) }
	duration := func(r *Reader, n *yaml.Node, key string) { got = r.Duration(n, key, time.Second, time.Hour) }
	word := func(r *Reader, n *yaml.Node, key string) { got = r.OneOf(n, key, "allow", "deny") }
	for _, c := range []struct {
		value  string
		method func(*Reader, *yaml.Node, string)
		want   any
		fault  string // its beginning, after "f.yaml:1: k: "; empty: none
	}{
		{"1KiB", size, int64(1 << 10), ""},
		{"1TiB", size, int64(1 << 40), ""},
		{"3 MiB", size, int64(3 << 20), ""},
		{"2TiB", size, int64(1 << 10), "must be a size such as 512MiB (KiB, MiB, GiB or TiB), 1KiB–1TiB"},
		{"9999999999999GiB", size, int64(1 << 10), "must be a size"},
		{"-1GiB", size, int64(1 << 10), "must be a size"},
		{"1024", size, int64(1 << 10), "must be a size"},
		{"1.20", text, "1.20", ""},
		{"~", text, "", `must be a text (got "nothing")`},
		{`"a\0b"`, text, "", "must not hold control characters"},
		{"abcdefghijk", text, "", "must be at most 10 bytes"},
		{"7", number, 7, ""},
		{"0x7", number, 1, "must be a whole number, 1–10"},
		{"11", number, 1, "must be a whole number, 1–10"},
		{"0.5", decimal, 0.5, ""},
		{".nan", decimal, 0.5, "must be a number"},
		{".inf", decimal, 0.5, "must be a number"},
		{"true", truth, true, ""},
		{"yes", truth, false, "must be true or false"},
		{"90s", duration, 90 * time.Second, ""},
		{"90", duration, time.Second, `must be a duration such as 30s or 1m30s, 1s–1h0m0s (got "90"); give a unit: did you mean 90s?`},
		{"deny", word, "deny", ""},
		{"dney", word, "allow", `must be one of allow, deny (got "dney"); did you mean deny?`},
		{"[deny]", word, "allow", "must be a text"},
	} {
		got = nil
		fault := strings.TrimPrefix(read(t, c.value, c.method), "f.yaml:1: k: ")
		if got != c.want || (fault == "") != (c.fault == "") || !strings.HasPrefix(fault, c.fault) {
			t.Errorf("%s: %v %q, want %v %q", c.value, got, fault, c.want, c.fault)
		}
	}
}

func TestOpenRefusesWhatCouldGrow(t *testing.T) {
	deep := strings.Repeat("[", 10) + strings.Repeat("]", 10)
	for text, want := range map[string]string{
		"":                               "the file is empty",
		"# only a comment\n":             "the file is empty",
		"a: &x 1\n":                      "anchors",
		"a: *x\n":                        "not valid YAML",
		"a: !!binary aGVsbG8=\n":         "tags are not allowed",
		"a: 1\n---\nb: 2\n":              "a second document",
		"a: " + deep:                     "nested too deeply",
		strings.Repeat("- 1\n", 200):     "too many values",
		strings.Repeat("#", 2000) + "\n": "the file has 2001 bytes, allowed are 1024",
		"a: @b\n":                        "indented with spaces",
	} {
		r, root := Open("f.yaml", []byte(text), limits)
		if err := r.Err(); root != nil || err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.30q: %v, want %q", text, err, want)
		}
	}
}

func TestFieldsAndEntries(t *testing.T) {
	r, root := Open("f.yaml", []byte("a: 1\nA: 1\nnames: {x: 1, x: 2, ~: 3, [y]: 4}\nlist: 1\n"), limits)
	var seen []string
	note := func(n *yaml.Node, key string) { seen = append(seen, key) }
	r.Fields(root, "", map[string]Field{
		"a": note,
		"names": func(n *yaml.Node, key string) {
			r.Entries(n, key, "things", 10, func(_, value *yaml.Node, key string) { note(value, key) })
		},
		"list": func(n *yaml.Node, key string) { r.Items(n, key, "things", 1, 2, note) },
	})
	if got := fmt.Sprint(seen); got != "[a names.x]" {
		t.Errorf("read %s", got)
	}
	want := `f.yaml:2: A: unknown key; allowed: a, list, names; did you mean a?
f.yaml:3: names.x: given twice, first on line 3; keep one of them
f.yaml:3: names: a key must be a plain word, a name (got "nothing")
f.yaml:3: names: a key must be a plain word, a name (got "a list")
f.yaml:4: list: must be a list of things (got "1")`
	if err := r.Err(); err == nil || err.Error() != want {
		t.Errorf("got\n%v\nwant\n%s", err, want)
	}
}

func TestFaultsAreBounded(t *testing.T) {
	r, _ := Open("f.yaml", []byte("a: 1\n"), limits)
	for range 1000 {
		r.Fault(&yaml.Node{}, "k", "wrong", "", "")
	}
	faults := r.Err().(*Faults)
	if n := len(faults.List); n != maxFaults+1 {
		t.Errorf("%d faults", n)
	}
}

// A fault within a text says where it is in the file, wherever the text stands there as it is read.
func TestFaultWithinAText(t *testing.T) {
	for text, want := range map[string]string{
		"a: one two":                     "f.yaml:1:8: a: wrong",
		"a: 'one two'":                   "f.yaml:1:9: a: wrong",
		`a: "one two"`:                   "f.yaml:1:9: a: wrong",
		"ä: one two":                     "f.yaml:1:8: ä: wrong",
		`a: "one\ttwo"`:                  "f.yaml:1: a: wrong (line 1, column 5 of the text)",
		"a: |\n    one two\n":            "f.yaml:2:9: a: wrong",
		"a: >\n    one two\n    three\n": "f.yaml:1: a: wrong (line 1, column 5 of the text)",
		"a: one two\n   three\n":         "f.yaml:1: a: wrong (line 1, column 5 of the text)",
	} {
		r, root := Open("f.yaml", []byte(text), limits)
		if root == nil {
			t.Fatal(r.Err())
		}
		r.FaultWithin(root.Content[1], root.Content[0].Value, 1, 5, "wrong", "", "")
		if got := r.Err().Error(); got != want {
			t.Errorf("%q: %s, want %s", text, got, want)
		}
	}
}
