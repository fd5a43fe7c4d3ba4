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

// FuzzSubjects builds subjects of whatever names come: a builder's subject is either refused, or is read back
// as it was, and no name reaches another token.
func FuzzSubjects(f *testing.F) {
	f.Add("hello", "prod", "https://example.org/x.git", "KEY", 1, 1, 1)
	f.Add("*", ">", "a.b", "\x00", 0, -1, 1<<40)
	f.Add("_", "", "-", "é", 1<<31, 1, 1)
	f.Fuzz(func(t *testing.T, app, env, text, id string, epoch, run, attempt int) {
		key := Key(text, id)
		for _, s := range []Subject{
			AppSubject(epoch, Slug(app)),
			RunStartSubject(epoch, TypeChangeMerged, Slug(app), text, id, run, text),
			CommandSubject(epoch, TypeCommandReceived, Slug(app), run, Slug(env), id),
			SettingSubject(epoch, TypeSettingChanged, Slug(app), Slug(env), id, "", uint64(attempt)),
			SettingSubject(epoch, TypeSettingChanged, Slug(app), Slug(env), id, "Consul (http://127.0.0.1:8500)", uint64(attempt)),
			PolicySubject(epoch, attempt),
			BuildSubject(epoch, TypeBuildStarted, Slug(app), run, Slug(text), attempt),
			VetSubject(epoch, TypeVetRunStarted, Slug(app), run, key, attempt),
			PromoteSubject(epoch, TypePipelineRunQueued, Slug(app), run, Slug(env), key, attempt),
			SlotSubject(epoch, TypeSlotTaken, Slug(app), Slug(env), attempt),
			ServiceSubject(epoch, TypeServiceDeployed, Slug(app), run, Slug(env), attempt),
			VerifySubject(epoch, TypeTestCaseRunFinished, Slug(app), run, Slug(env), attempt, run, attempt),
			StageReplayedSubject(epoch, Writer(env), Slug(app), run, Slug(env), text, attempt),
			StuckSubject(epoch, Slug(app), run, Slug(env), text, attempt, run),
		} {
			if s.Validate() != nil {
				continue
			}
			for _, written := range []string{s.String(), s.AppendSubject()} {
				if got, err := ParseSubject(written); err != nil || got != s {
					t.Errorf("%+v is written %q and read as %+v, %v", s, written, got, err)
				}
			}
		}
		if _, err := ParseSlug(string(key)); err != nil {
			t.Errorf("the key of %q is %q: %v", text, key, err)
		}
	})
}
