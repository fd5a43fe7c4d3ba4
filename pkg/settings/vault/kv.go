package vault

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"towpath.dev/pkg/pause"
	"towpath.dev/pkg/settings"
)

// kv is a mount of KV version 2.
type kv struct {
	mount   string
	session *session
}

// withValues and withoutValues are the endpoints that a path is read from.
const (
	withValues    = "data"
	withoutValues = "subkeys"
)

// state is one version of a path.
type state struct {
	current   uint64 // of the path's newest version; 0: there never was one
	live      bool   // neither deleted nor destroyed
	destroyed bool
	deleted   string // when; empty: it was not
	fields    map[string]any
	set       time.Time
	versions  table
}

func (s state) has(field string) bool {
	_, ok := s.fields[field]
	return ok && s.live
}

// others reports whether there are fields besides one.
func (s state) others(field string) bool {
	for name := range s.fields {
		if name != field && name != field+encodingSuffix {
			return true
		}
	}
	return false
}

// why says why a version is not there.
func (s state) why(key string, version, newest uint64) string {
	switch {
	case s.destroyed:
		return fmt.Sprintf("version %d was destroyed", version)
	case s.versions.gone[key] > version:
		return fmt.Sprintf("it was deleted since (with version %d)", s.versions.gone[key])
	case s.deleted != "":
		return fmt.Sprintf("version %d was deleted at %s (while it is not destroyed, `vault kv undelete` brings it back)", version, s.deleted)
	case s.live:
		return fmt.Sprintf("version %d of the path has no such field", version)
	case version > newest:
		return fmt.Sprintf("there is no version %d, the newest is %d", version, newest)
	}
	return fmt.Sprintf("version %d is older than what the path keeps (its max_versions)", version)
}

// look reads a version of a path, 0 being the newest.
func (k kv) look(ctx context.Context, path string, version uint64, endpoint string) (state, error) {
	query := url.Values{}
	if version > 0 {
		query.Set("version", strconv.FormatUint(version, 10))
	}
	a, err := k.session.do(ctx, request{method: http.MethodGet, path: k.mount + "/" + endpoint + "/" + path, query: query})
	if err != nil || a.Data == nil {
		return state{}, err
	}
	var body struct {
		Data, Subkeys map[string]any
		Metadata      struct {
			Version   uint64
			Created   time.Time `json:"created_time"`
			Deletion  string    `json:"deletion_time"`
			Destroyed bool
			Custom    map[string]any `json:"custom_metadata"`
		}
	}
	if err := a.decode(&body); err != nil {
		return state{}, fmt.Errorf("%s: its answer is not KV version 2's: %w", k.session.name, err)
	}
	m := body.Metadata
	s := state{current: m.Version, destroyed: m.Destroyed, deleted: m.Deletion, fields: body.Data, set: m.Created, versions: parseTable(m.Custom)}
	if endpoint == withoutValues {
		s.fields = body.Subkeys
	}
	s.live = a.status == http.StatusOK && !s.destroyed
	if !s.live {
		s.fields = nil
	}
	return s, nil
}

const (
	// settleFor is how long a version may be without a table of its own because its writer is about to write it.
	settleFor  = 5 * time.Second
	settleTick = 50 * time.Millisecond
	settleMost = 10
)

// settled is look at the newest version, once its table is there too. Where it does not come, another tool has written.
func (k kv) settled(ctx context.Context, path, endpoint string) (state, error) {
	for i := 0; ; i++ {
		s, err := k.look(ctx, path, 0, endpoint)
		if err != nil || s.versions.at == 0 || s.versions.at == s.current || i == settleMost || time.Since(s.set).Abs() > settleFor {
			return s, err
		}
		select {
		case <-ctx.Done():
			return state{}, ctx.Err()
		case <-time.After(settleTick):
		}
	}
}

// write makes the version after s, with fields merged into its own; nil takes one away. The error wraps
// settings.ErrChanged where s is not the newest any more.
func (k kv) write(ctx context.Context, path string, s state, fields map[string]any) (uint64, error) {
	r := request{method: http.MethodPost, path: k.mount + "/data/" + path, body: map[string]any{"options": map[string]any{"cas": s.current}, "data": fields}}
	if s.live {
		r.method = http.MethodPatch
	}
	a, err := k.session.do(ctx, r)
	switch {
	case errors.Is(err, errRefused) && strings.Contains(err.Error(), "check-and-set parameter did not match"):
		return 0, fmt.Errorf("%w: the path has another version than %d", settings.ErrChanged, s.current)
	case err != nil:
		return 0, err
	case a.status == http.StatusNotFound: // deleted since it was seen, so there is nothing to merge into
		return 0, fmt.Errorf("%w: version %d was deleted", settings.ErrChanged, s.current)
	}
	var written struct{ Version uint64 }
	if err := a.decode(&written); err != nil || written.Version == 0 {
		return 0, fmt.Errorf("%s: it does not say which version of %s it wrote", k.session.name, path)
	}
	return written.Version, nil
}

// How often it is tried to keep a table.
const (
	noteTries = 4
	notePause = 200 * time.Millisecond // before the second time, then twice as long each time
)

// note keeps what the table of a path says after s. The version that it is about is written already, so that it cannot be
// kept is no fault of the write: all fields count as changed then, as after another tool's write. Another table may have
// been written meanwhile by who wrote a later version: then this one is valid for no version that is the newest, and the
// next writer's replaces it.
func (k kv) note(ctx context.Context, path string, before state, t table) {
	ctx = context.WithoutCancel(ctx)
	r := request{method: http.MethodPatch, path: k.mount + "/metadata/" + path, body: map[string]any{"custom_metadata": t.texts(before.versions)}}
	_, err := k.session.do(ctx, r)
	for try, wait := 1, notePause; err != nil && try < noteTries && !errors.Is(err, errDenied) && !errors.Is(err, errRefused); try, wait = try+1, 2*wait {
		if pause.For(ctx, wait) != nil {
			break
		}
		_, err = k.session.do(ctx, r)
	}
	if err != nil {
		k.session.logger.Warn("Vault: since which version each secret of the path has its value is not noted: all count as changed", "path", path, "err", err)
	}
}

// holding returns the versions of a path that hold a field: those that hold nothing else, and those that hold, or may
// hold, other fields too; only says that other fields are nobody's secrets. oldest is the first version that the path keeps.
func (k kv) holding(ctx context.Context, path, field string, only bool) (alone, shared []uint64, oldest uint64, err error) {
	a, err := k.session.do(ctx, request{method: http.MethodGet, path: k.mount + "/metadata/" + path})
	if err != nil || a.Data == nil {
		return nil, nil, 0, err
	}
	var body struct {
		Oldest   uint64 `json:"oldest_version"`
		Versions map[uint64]struct {
			Destroyed bool
			Deletion  string `json:"deletion_time"`
		}
	}
	if err := a.decode(&body); err != nil {
		return nil, nil, 0, fmt.Errorf("%s: its answer is not KV version 2's: %w", k.session.name, err)
	}
	for _, version := range slices.Sorted(maps.Keys(body.Versions)) {
		v := body.Versions[version]
		if v.Destroyed {
			continue
		}
		s, err := k.look(ctx, path, version, withoutValues)
		switch {
		case err != nil:
			return nil, nil, 0, err
		case s.has(field) && s.others(field) && !only:
			shared = append(shared, version)
		case s.has(field):
			alone = append(alone, version)
		case v.Deletion != "" && !s.live: // what it holds is not shown, and can be brought back
			if only {
				alone = append(alone, version)
			} else {
				shared = append(shared, version)
			}
		}
	}
	return alone, shared, body.Oldest, nil
}

// destroy takes versions of a path away for good.
func (k kv) destroy(ctx context.Context, path string, versions []uint64) error {
	_, err := k.session.do(ctx, request{method: http.MethodPut, path: k.mount + "/destroy/" + path, body: map[string]any{"versions": versions}})
	return err
}

// list returns the names in a folder, those of folders with a slash after them.
func (k kv) list(ctx context.Context, folder string) ([]string, error) {
	a, err := k.session.do(ctx, request{method: "LIST", path: strings.TrimSuffix(k.mount+"/metadata/"+folder, "/")})
	if err != nil || a.Data == nil {
		return nil, err
	}
	var body struct{ Keys []string }
	if err := a.decode(&body); err != nil {
		return nil, fmt.Errorf("%s: its list is not KV version 2's: %w", k.session.name, err)
	}
	return body.Keys, nil
}

// decode reads an answer's data into a struct.
func (a answer) decode(into any) error {
	text, err := json.Marshal(a.Data)
	if err != nil {
		return err
	}
	return json.Unmarshal(text, into)
}
