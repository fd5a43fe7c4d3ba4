package events

import (
	"errors"
	"testing"
)

func TestSubjectRoundTrip(t *testing.T) {
	for _, s := range []Subject{
		AppSubject(1, "hello"),
		RunStartSubject(1, TypeChangeMerged, "hello", "https://example.org/x.git", "refs/heads/main", 3, "abc"),
		SlotSubject(2, TypeSlotTaken, "hello", "prod", 12),
		VerifySubject(1, TypeTestCaseRunFinished, "hello", 7, "qa", 3, 2, 1),
		PolicySubject(1, 1),
	} {
		for _, text := range []string{s.String(), s.AppendSubject()} {
			got, err := ParseSubject(text)
			if err != nil || got != s {
				t.Errorf("ParseSubject(%q) = %+v, %v; want %+v", text, got, err, s)
			}
		}
	}
}

func TestParseSubjectRefuses(t *testing.T) {
	for _, text := range []string{
		"", "event", "event.1.build.a.1._.build.started._", "event.1.build.a.1._.build.started._.1.2",
		"event.0.build.a.1._.build.started._.1", "event.01.build.a.1._.build.started._.1",
		"event.1.build.*.1._.build.started._.1", "event.1.build.>.1._.build.started._.1",
		"event.1.build.A.1._.build.started._.1", "event.1.build.a.-1._.build.started._.1",
		"event.1._.a.1._.build.started._.1", "event.1.build.a.1._._.started._.1",
		"event.1.build.a.1._.build.started._.99999999999", "live.1.build.a.1._.build.started._.1",
		"event.1.build.a\x00.1._.build.started._.1", "event.1.build..1._.build.started._.1",
	} {
		if got, err := ParseSubject(text); err == nil {
			t.Errorf("ParseSubject(%q) = %+v, want an error", text, got)
		}
	}
}

func TestParseSlug(t *testing.T) {
	for _, ok := range []string{"a", "hello", "a-1", "0"} {
		if _, err := ParseSlug(ok); err != nil {
			t.Errorf("ParseSlug(%q): %v", ok, err)
		}
	}
	for _, bad := range []string{"", "-a", "a-", "A", "a_b", "a.b", "ü", "a b", string(make([]byte, 64))} {
		if _, err := ParseSlug(bad); !errors.Is(err, ErrSlug) {
			t.Errorf("ParseSlug(%q) = %v, want ErrSlug", bad, err)
		}
	}
}

func FuzzParseSubject(f *testing.F) {
	f.Add("event.1.build.a.1._.build.started._.1")
	f.Add("append.build.1.a.1._.build.started._.1")
	f.Fuzz(func(t *testing.T, text string) {
		s, err := ParseSubject(text)
		if err != nil {
			return
		}
		if s.String() != text && s.AppendSubject() != text {
			t.Errorf("%q parsed as %+v, which is written %q", text, s, s.String())
		}
	})
}
