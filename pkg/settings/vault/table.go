package vault

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"towpath.dev/pkg/pipeline"
)

// table says since which version of a path each of its fields has its value, valid for one version of the path, and which
// were deleted. It is kept in the path's custom metadata, as texts such as "12 OLD=-9 PASSWORD=7 PORT=12": of the path's
// version 12, PASSWORD has its value since version 7, and OLD of versions before 9 is not to be had any more.
type table struct {
	at    uint64
	since map[string]uint64
	gone  map[string]uint64
	names []string // of the metadata that it was read from
}

// KV takes 64 texts of at most 512 bytes; some may be other people's.
const (
	tablePrefix = "towpath."
	tableMost   = 56
	textLongest = 512
)

// of returns the version of a key of a path that has the version current.
func (t table) of(key string, current uint64) uint64 {
	if since, ok := t.since[key]; ok && t.at == current {
		return since
	}
	return current
}

// after returns what the table says once version came after s, by a change of key alone.
func (s state) after(version uint64, key string) table {
	t := table{at: version, since: map[string]uint64{key: version}, gone: s.versions.gone}
	for field := range s.fields {
		if field != key && pipeline.CheckSecret(field) == nil {
			t.since[field] = s.versions.of(field, s.current)
		}
	}
	return t
}

// without returns what the table says once version came after s, by the deletion of key. left says that earlier versions
// still hold it.
func (s state) without(version uint64, key string, left bool) table {
	t := s.after(version, key)
	delete(t.since, key)
	if left {
		t.gone = maps.Clone(t.gone)
		t.gone[key] = version
	}
	return t
}

// kept returns the table without deletions that are of no use, because the path keeps nothing older than a version.
func (t table) kept(oldest uint64) table {
	t.gone = maps.Clone(t.gone)
	maps.DeleteFunc(t.gone, func(_ string, at uint64) bool { return at <= oldest })
	return t
}

// texts returns the table as metadata, nil for what is there of an earlier one and is of no use any more. What does not
// fit counts as changed with each version.
func (t table) texts(before table) map[string]any {
	var entries []string
	for _, key := range slices.Sorted(maps.Keys(t.gone)) {
		entries = append(entries, fmt.Sprintf("%s=-%d", key, t.gone[key]))
	}
	for _, key := range slices.Sorted(maps.Keys(t.since)) {
		if t.since[key] < t.at {
			entries = append(entries, fmt.Sprintf("%s=%d", key, t.since[key]))
		}
	}
	texts := map[string]any{}
	for _, name := range before.names {
		texts[name] = nil
	}
	head := strconv.FormatUint(t.at, 10)
	text, n := head, 1
	for _, entry := range entries {
		if len(text)+1+len(entry) > textLongest {
			texts[tablePrefix+strconv.Itoa(n)] = text
			if n == tableMost {
				return texts
			}
			text, n = head, n+1
		}
		text += " " + entry
	}
	texts[tablePrefix+strconv.Itoa(n)] = text
	return texts
}

func parseTable(metadata map[string]any) table {
	t := table{since: map[string]uint64{}, gone: map[string]uint64{}}
	for name, value := range metadata {
		text, isText := value.(string)
		if !strings.HasPrefix(name, tablePrefix) || !isText {
			continue
		}
		t.names = append(t.names, name)
		head, entries, _ := strings.Cut(text, " ")
		at, err := strconv.ParseUint(head, 10, 64)
		if err != nil {
			continue
		}
		if at > t.at {
			t.at, t.since = at, map[string]uint64{}
		}
		for entry := range strings.FieldsSeq(entries) {
			key, number, _ := strings.Cut(entry, "=")
			deleted, isDeletion := strings.CutPrefix(number, "-")
			if n, err := strconv.ParseUint(deleted, 10, 64); err != nil {
				continue
			} else if isDeletion {
				t.gone[key] = max(t.gone[key], n)
			} else if at == t.at {
				t.since[key] = n
			}
		}
	}
	return t
}
