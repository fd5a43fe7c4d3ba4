package events

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write goldens that do not exist yet")

// TestGoldens decodes every golden, for ever: a golden is added with a type and never changed.
func TestGoldens(t *testing.T) {
	for typ, newBody := range bodies {
		path := filepath.Join("testdata", strings.TrimPrefix(string(typ), "dev.")+".json")
		golden, err := os.ReadFile(path)
		if errors.Is(err, os.ErrNotExist) && *update {
			golden = writeGolden(t, path, newBody())
		} else if err != nil {
			t.Errorf("%s has no golden (go test -update writes it): %v", typ, err)
			continue
		}
		e, err := Decode(golden)
		if err != nil {
			t.Errorf("%s: %v", path, err)
			continue
		}
		if e.Body.Type() != typ {
			t.Errorf("%s decodes as %s", path, e.Body.Type())
		}
		again, err := e.Encode()
		if err != nil {
			t.Errorf("%s: %v", path, err)
		}
		if !bytes.Equal(bytes.TrimSpace(golden), again) {
			t.Errorf("%s does not survive a round trip:\n%s\n%s", path, golden, again)
		}
	}
}

func writeGolden(t *testing.T, path string, b Body) []byte {
	t.Helper()
	fill(reflect.ValueOf(b).Elem())
	if c := b.custom(); c != nil {
		fill(reflect.ValueOf(c).Elem())
	}
	b.setSubjectID("hello/1")
	e := New(Gateway, time.Date(2026, 1, 2, 3, 4, 5, 6000, time.UTC), "3b241101-e2bb-4255-8caf-4136c566a962", b,
		Relation("replays", "6ec0bd7f-11c0-43da-975e-2a8ad9ebae0b"))
	e.ID = "7d444840-9dc0-11d1-b245-5ffdce74fad2"
	data, err := e.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, append(data, '\n'), 0o644); err != nil {
		t.Fatal(err)
	}
	return data
}

// fill gives every field a value that is not its zero.
func fill(v reflect.Value) {
	switch v.Kind() {
	case reflect.String:
		v.SetString("text")
	case reflect.Int, reflect.Int64:
		v.SetInt(7)
	case reflect.Uint64:
		v.SetUint(7)
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem())
	case reflect.Slice:
		if v.Type() == reflect.TypeFor[json.RawMessage]() {
			v.SetBytes([]byte(`{"app":"hello"}`))
			return
		}
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		fill(v.Index(0))
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		elem := reflect.New(v.Type().Elem()).Elem()
		fill(elem)
		v.SetMapIndex(reflect.ValueOf("KEY"), elem)
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[time.Time]() {
			v.Set(reflect.ValueOf(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)))
			return
		}
		for i := range v.NumField() {
			fill(v.Field(i))
		}
	}
}

func TestTypeNames(t *testing.T) {
	form := regexp.MustCompile(`^dev\.(cdevents\.[a-z]+|cdeventsx\.towpath-[a-z]+)\.[a-z]+\.[0-9]\.[0-9]\.[0-9]$`)
	for typ := range bodies {
		if !form.MatchString(string(typ)) {
			t.Errorf("%s is no CDEvents type name", typ)
		}
		if _, err := ParseSlug(typ.Subject()); err != nil {
			t.Errorf("%s: %v", typ, err)
		}
		if _, err := ParseSlug(typ.Predicate()); err != nil {
			t.Errorf("%s: %v", typ, err)
		}
	}
}

func TestDecodeRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		body string
		want error
	}{
		"empty":         {``, ErrMalformed},
		"not an object": {`[]`, ErrMalformed},
		"trailing":      {`{} {}`, ErrMalformed},
		"unknown type":  {`{"context":{"type":"dev.cdevents.build.started.9.0.0"}}`, ErrUnknownType},
		"no id":         {`{"context":{"type":"dev.cdevents.build.started.0.3.0","timestamp":"2026-01-02T03:04:05Z"},"subject":{"id":"a","content":{}}}`, ErrMalformed},
		"bad time":      {`{"context":{"type":"dev.cdevents.build.started.0.3.0","id":"a","source":"b","timestamp":"yesterday"},"subject":{"id":"a","content":{}}}`, ErrMalformed},
		"no content":    {`{"context":{"type":"dev.cdevents.build.started.0.3.0","id":"a","source":"b","timestamp":"2026-01-02T03:04:05Z"},"subject":{"id":"a"}}`, ErrMalformed},
	} {
		if _, err := Decode([]byte(c.body)); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
}

func TestCheckHeaders(t *testing.T) {
	e := New(Build, time.Now(), "chain", &ArtifactPackaged{About: About{"pkg:oci/a b@sha256:ü"}, Change: Reference{ID: "c"}})
	h := e.Headers()
	get := func(n string) string { return h[n] }
	if err := e.CheckHeaders(get); err != nil {
		t.Error(err)
	}
	for name := range h {
		was := h[name]
		h[name] = was + "x"
		if err := e.CheckHeaders(get); err == nil {
			t.Errorf("a changed %s went unnoticed", name)
		}
		h[name] = was
	}
}

func FuzzDecode(f *testing.F) {
	for _, golden := range goldens(f) {
		f.Add(golden)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if wrong := same(data); wrong != "" {
			t.Fatal(wrong)
		}
		e, err := Decode(data)
		if err != nil {
			if !errors.Is(err, ErrMalformed) && !errors.Is(err, ErrUnknownType) {
				t.Errorf("untyped error %v", err)
			}
			return
		}
		again, err := e.Encode()
		if err != nil {
			t.Fatalf("decoded, but cannot be encoded: %v", err)
		}
		if _, err := Decode(again); err != nil {
			t.Fatalf("encoded, but cannot be decoded: %v\n%s", err, again)
		}
	})
}
