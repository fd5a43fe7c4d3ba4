package engine

import (
	"strings"
	"testing"
)

func TestWhatAPushReports(t *testing.T) {
	one, other := "sha256:"+strings.Repeat("1", 64), "sha256:"+strings.Repeat("2", 64)
	for name, c := range map[string]struct {
		said, digest, err string
	}{
		"graph drivers":             {`{"status":"run-1: digest: ` + one + ` size: 528"}{"progressDetail":{},"aux":{"Tag":"run-1","Digest":"` + one + `","Size":528}}`, one, ""},
		"containerd's image store":  {`{"status":"Pushed","id":"layer"}{"status":"run-1: digest: ` + one + ` size: 528"}`, one, ""},
		"what is meant for clients": {`{"status":"run-1: digest: ` + other + ` size: 528"}{"aux":{"Digest":"` + one + `"}}`, one, ""},
		"a layer's digest":          {`{"status":"Pushing ` + one + `"}`, "", "reported no digest"},
		"refused":                   {`{"status":"run-1: digest: ` + one + ` size: 528"}{"error":"denied"}`, "", "denied"},
		"cut off":                   {`{"status":"run-1: digest: ` + one + ` size: 528"}{"stat`, "", "unexpected EOF"},
	} {
		digest, err := pushed(strings.NewReader(c.said), func() {})
		if digest != c.digest || (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%s: %q, %v", name, digest, err)
		}
	}
}
