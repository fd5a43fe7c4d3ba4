package registry_test

import (
	"errors"
	"strings"
	"testing"

	"towpath.dev/pkg/registry"
)

var someHex = strings.Repeat("0123456789abcdef", 4)

func TestPURLIsCanonical(t *testing.T) {
	const want = "pkg:oci/hello@sha256:HEX?repository_url=127.0.0.1:7050/team/hello"
	canonical := strings.Replace(want, "HEX", someHex, 1)
	for _, other := range []string{
		canonical,
		"pkg:oci/hello@sha256%3A" + someHex + "?repository_url=127.0.0.1%3A7050%2Fteam%2Fhello",
		"pkg:oci/hello@sha256%3a" + someHex + "?arch=amd64&repository_url=127.0.0.1:7050/team/hello&tag=v1",
		"pkg:oci/Hello@sha256:" + someHex + "?repository_url=127.0.0.1:7050/team/hello#sub/path",
	} {
		a, err := registry.ParsePURL(other)
		if err != nil {
			t.Errorf("%s: %v", other, err)
		} else if a.PURL() != canonical {
			t.Errorf("%s became %s, not %s", other, a.PURL(), canonical)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	digest := "sha256:" + someHex
	for _, bad := range []string{
		"", "hello", "127.0.0.1:7050/hello:latest", "127.0.0.1:7050/hello@sha256:abc", "127.0.0.1:7050/hello@sha512:" + someHex,
		"127.0.0.1:7050/hello@" + strings.ToUpper(digest), "127.0.0.1:7050/Hello@" + digest, "127.0.0.1:7050/../x@" + digest,
		"-o/hello@" + digest, "127.0.0.1:7050/hello@" + digest + "@" + digest, "@" + digest, "host/a b@" + digest,
	} {
		if a, err := registry.ParseArtifact(bad); !errors.Is(err, registry.ErrName) {
			t.Errorf("ParseArtifact(%q) = %v, %v, want ErrName", bad, a, err)
		}
	}
	for _, bad := range []string{
		"", "pkg:oci/", "pkg:docker/hello@" + digest, "pkg:oci/hello", "pkg:oci/hello@" + digest,
		"pkg:oci/hello@1.0?repository_url=host/hello", "pkg:oci/other@" + digest + "?repository_url=host.example/hello",
		"pkg:oci/hello@" + digest + "?repository_url=host.example/hello:tag", "pkg:oci/%zz@" + digest + "?repository_url=host.example/hello",
	} {
		if a, err := registry.ParsePURL(bad); !errors.Is(err, registry.ErrName) {
			t.Errorf("ParsePURL(%q) = %v, %v, want ErrName", bad, a, err)
		}
	}
}

func TestParseArtifactDropsTheTag(t *testing.T) {
	for in, want := range map[string]string{
		"Registry.Example:5000/a/b:v1@sha256:" + someHex: "registry.example:5000/a/b@sha256:" + someHex,
		"127.0.0.1:7050/hello@sha256:" + someHex:         "127.0.0.1:7050/hello@sha256:" + someHex,
		"debian@sha256:" + someHex:                       "index.docker.io/library/debian@sha256:" + someHex,
	} {
		a, err := registry.ParseArtifact(in)
		if err != nil || a.String() != want {
			t.Errorf("ParseArtifact(%q) = %v, %v, want %s", in, a, err, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("127.0.0.1:7050/hello@sha256:" + someHex)
	f.Add("pkg:oci/hello@sha256:" + someHex + "?repository_url=127.0.0.1:7050/hello")
	f.Fuzz(func(t *testing.T, s string) {
		if a, err := registry.ParseArtifact(s); err == nil {
			checkRoundTrip(t, a)
		}
		if a, err := registry.ParsePURL(s); err == nil {
			checkRoundTrip(t, a)
		}
	})
}

func checkRoundTrip(t *testing.T, a registry.Artifact) {
	t.Helper()
	if again, err := registry.ParseArtifact(a.String()); err != nil || again != a {
		t.Errorf("ParseArtifact(%q) = %v, %v", a.String(), again, err)
	}
	if again, err := registry.ParsePURL(a.PURL()); err != nil || again != a {
		t.Errorf("ParsePURL(%q) = %v, %v", a.PURL(), again, err)
	}
}
