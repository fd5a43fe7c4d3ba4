package vault

import (
	"fmt"
	"maps"
	"strings"
	"testing"
)

// What is kept of a table says the same when it is read, within what KV takes of metadata, and replaces an earlier one.
func TestTable(t *testing.T) {
	before := parseTable(map[string]any{"owner": "team", "towpath.at": "11", "towpath.KEY": "3", "towpath.9": "11 A=3"})
	s := state{current: 11, live: true, fields: map[string]any{}, versions: before}
	for i := range 600 {
		s.fields[fmt.Sprintf("A_NAME_OF_A_SECRET_%03d", i)] = "x"
	}
	for _, length := range []int{128, 40} {
		long := strings.Repeat("K", length)
		want := s.without(12, long, true)
		if length == 40 {
			want = s.after(12, long)
			want.since["B"] = 7
		}
		got := map[string]any{"owner": "team"}
		for name, text := range want.texts(before) {
			if text == nil {
				delete(got, name)
				continue
			}
			got[name] = text
			if len(name) > 128 || len(text.(string)) > 512 {
				t.Errorf("%s has %d bytes", name, len(text.(string)))
			}
		}
		if len(got) > 60 {
			t.Errorf("%d texts", len(got))
		}
		for _, name := range []string{"towpath.at", "towpath.KEY"} {
			if got[name] != nil {
				t.Errorf("%s stays", name)
			}
		}
		read := parseTable(got)
		if read.at != 12 || !maps.Equal(read.gone, want.gone) {
			t.Errorf("read at %d, gone %v, want 12, %v", read.at, read.gone, want.gone)
		}
		for key := range want.since {
			if read.of(key, 12) != want.of(key, 12) {
				t.Errorf("%s has its value since %d, want %d", key, read.of(key, 12), want.of(key, 12))
			}
		}
		if read.of("B", 13) != 13 {
			t.Error("a table counts for another version")
		}
	}
}

// Of a path with more keys than fit, the rest counts as changed, and nothing is sent that KV refuses.
func TestTableOfTooMany(t *testing.T) {
	huge := table{at: 12, since: map[string]uint64{}, gone: map[string]uint64{"GONE": 4}}
	for i := range 5000 {
		huge.since[fmt.Sprintf("A_NAME_OF_A_SECRET_%04d", i)] = 3
	}
	texts := huge.texts(table{})
	read := parseTable(texts)
	if len(texts) != tableMost || read.gone["GONE"] != 4 || len(read.since) < 1000 || read.of("A_NAME_OF_A_SECRET_4999", 12) != 12 {
		t.Errorf("%d texts, %d keys, gone %v", len(texts), len(read.since), read.gone)
	}
}
