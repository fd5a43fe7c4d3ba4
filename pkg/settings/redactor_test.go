package settings

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestSecretNeverShows(t *testing.T) {
	secret := NewSecret(canary)
	type holder struct {
		Name   string
		Secret Secret
		Pair   *Secret
	}
	h := holder{"a", secret, &secret}
	var log strings.Builder
	slog.New(slog.NewJSONHandler(&log, nil)).Info("text", "secret", secret, "holder", h)
	slog.New(slog.NewTextHandler(&log, nil)).Info("text", "secret", secret, "holder", h)
	marshalled, err := json.Marshal(h)
	if err != nil {
		t.Fatal(err)
	}
	texts := []string{log.String(), string(marshalled), fmt.Errorf("failed: %w", fmt.Errorf("%v", secret)).Error()}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%t", "%c", "%10s"} {
		texts = append(texts, fmt.Sprintf(verb, secret), fmt.Sprintf(verb, h), fmt.Sprintf(verb, []Secret{secret}))
	}
	for _, text := range texts {
		if strings.Contains(text, "canary") || strings.Contains(text, hex.EncodeToString([]byte("canary"))) || strings.Contains(strings.ToLower(text), "63616e617279") {
			t.Errorf("shown: %s", text)
		}
	}
	if secret.Reveal() != canary {
		t.Error("Reveal does not return the value")
	}
}

func TestRedact(t *testing.T) {
	secret := "s3cr/t+v&lue \"x\"\n"
	trimmed := strings.TrimSpace(secret)
	quoted, err := json.Marshal(trimmed)
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"plain":           "a " + secret + " b",
		"trimmed":         "a" + trimmed + "b",
		"query":           "a?x=" + url.QueryEscape(trimmed) + "&y",
		"path":            "a/" + url.PathEscape(trimmed) + "/y",
		"hex":             hex.EncodeToString([]byte(trimmed)),
		"JSON":            string(quoted),
		"base64":          base64.StdEncoding.EncodeToString([]byte(trimmed)),
		"base64 URL":      base64.URLEncoding.EncodeToString([]byte(trimmed)),
		"base64 inside 1": base64.StdEncoding.EncodeToString([]byte("u:" + trimmed)),
		"base64 inside 2": base64.StdEncoding.EncodeToString([]byte("user:" + trimmed + "@host")),
		"base64 inside 3": base64.StdEncoding.EncodeToString([]byte("use:" + trimmed + "\n")),
		"two of them":     trimmed + trimmed,
	} {
		got := Redact(text, NewSecret(secret))
		if !strings.Contains(got, Redacted) {
			t.Errorf("%s: %q became %q", name, text, got)
		}
		rest := strings.ReplaceAll(got, Redacted, "")
		if len(rest) > 16 {
			t.Errorf("%s: too much is left: %q", name, got)
		}
	}
	for text, want := range map[string]string{
		"nothing to see":   "nothing to see",
		"abcXYZ123 end":    Redacted + " end", // two secrets that overlap
		"abcXabcX":         Redacted + Redacted,
		"abc":              "abc",
		"a\nlong-line-1 b": "a\n" + Redacted + " b",
	} {
		if got := Redact(text, NewSecret("abcX"), NewSecret("XYZ123"), NewSecret("long-line-1\nlong-line-2\n"), NewSecret(""), NewSecret("e")); got != want {
			t.Errorf("%q became %q, want %q", text, got, want)
		}
	}
}

// However the text is cut into writes, the result is the same, and no secret is in it.
func TestRedactorStream(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		letters := rapid.StringOfN(rapid.SampledFrom([]rune("abc")), 3, 8, -1)
		secrets := make([]Secret, rapid.IntRange(1, 3).Draw(t, "secrets"))
		for i := range secrets {
			secrets[i] = NewSecret(letters.Draw(t, "secret"))
		}
		text := rapid.StringOfN(rapid.SampledFrom([]rune("abcd")), 0, 60, -1).Draw(t, "text")
		want := Redact(text, secrets...)
		for _, secret := range secrets {
			if strings.Contains(strings.ReplaceAll(want, Redacted, "|"), secret.Reveal()) {
				t.Fatalf("%q is left in %q", secret.Reveal(), want)
			}
		}
		var out strings.Builder
		r := NewRedactor(&out, secrets...)
		for rest := text; rest != ""; {
			n := rapid.IntRange(1, len(rest)).Draw(t, "cut")
			if written, err := r.Write([]byte(rest[:n])); written != n || err != nil {
				t.Fatal(written, err)
			}
			rest = rest[n:]
		}
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
		if out.String() != want {
			t.Fatalf("cut: %q, whole: %q", out.String(), want)
		}
	})
}

// A line that holds no beginning of a secret is passed on at once, so that a log can be followed live.
func TestRedactorDoesNotDelay(t *testing.T) {
	var out strings.Builder
	r := NewRedactor(&out, NewSecret(canary))
	fmt.Fprintln(r, "step 1 done")
	if out.String() != "step 1 done\n" {
		t.Errorf("held back: %q", out.String())
	}
}

func BenchmarkRedactor(b *testing.B) {
	line := []byte(strings.Repeat("#12 0.345 compiling towpath.dev/pkg/settings with go 1.26\n", 100))
	r := NewRedactor(discard{}, NewSecret(canary), NewSecret("another-secret-value"))
	b.SetBytes(int64(len(line)))
	for b.Loop() {
		if _, err := r.Write(line); err != nil {
			b.Fatal(err)
		}
	}
}

type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }
