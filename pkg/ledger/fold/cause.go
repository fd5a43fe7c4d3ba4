package fold

import (
	"net/netip"
	"regexp"
	"strings"

	"towpath.dev/events"
)

// longestCause is how much of an error makes a cause, in bytes.
const longestCause = 240

// Cause is why a stage of the run stopped, in words that are the same for every stage that stopped for the same
// reason; empty where nothing is known.
func (r *Run) Cause(s Stage) string {
	switch {
	case s.Stuck != nil && s.Stuck.Cause != "":
		return s.Stuck.Cause
	case s.Stuck != nil && s.Stuck.LastError != "":
		return r.Alike(s.Stuck.LastError)
	case s.Trouble != nil && s.Trouble.Why != "":
		return r.Alike(s.Trouble.What + ": " + s.Trouble.Why)
	case s.Trouble != nil:
		return r.Alike(s.Trouble.What)
	}
	return ""
}

// Alike takes out of an error's first line what differs from run to run: the app's name and whatever it
// is part of, digests and ids, moments and durations, and ports that the system chose.
func (r *Run) Alike(text string) string {
	text, _, _ = strings.Cut(strings.TrimSpace(text), "\n")
	text = moments.ReplaceAllString(text, other)
	var words []string
	for word := range strings.FieldsSeq(text) {
		if differs(r.App, word) {
			head := len(word) - len(strings.TrimLeft(word, opening))
			tail := len(strings.TrimRight(word, closing))
			if tail <= head {
				head, tail = 0, len(word)
			}
			word = word[:head] + other + word[tail:]
		}
		words = append(words, word)
	}
	text = strings.Join(words, " ")
	if len(text) > longestCause {
		text = strings.ToValidUTF8(text[:longestCause], "") + other
	}
	return text
}

// other stands for what differs.
const other = "…"

// What may stand around a word that differs.
const (
	opening = `"'(<[`
	closing = `"')>],.;:`
)

var (
	moments  = regexp.MustCompile(`\b\d{4}[-/]\d\d[-/]\d\d[T ]\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d:?\d\d)?|\b\d\d:\d\d:\d\d(\.\d+)?\b`)
	duration = regexp.MustCompile(`^-?(\d+(\.\d+)?(ns|µs|us|ms|s|m|h))+$`)
	hexes    = regexp.MustCompile(`[0-9a-f]{7,}`)
	digit    = regexp.MustCompile(`[0-9]`)
	parts    = regexp.MustCompile(`[^a-z0-9]+`)
)

// firstChosenPort is where the ports begin that systems choose.
const firstChosenPort = 32768

func differs(app events.Slug, word string) bool {
	core := strings.TrimRight(strings.TrimLeft(word, opening), closing)
	if duration.MatchString(core) || strings.Contains(core, "->") || named(app, word) {
		return true
	}
	for _, h := range hexes.FindAllString(word, -1) {
		if digit.MatchString(h) {
			return true
		}
	}
	core = strings.TrimPrefix(strings.TrimPrefix(core, "http://"), "https://")
	core, _, _ = strings.Cut(core, "/")
	address, err := netip.ParseAddrPort(core)
	return err == nil && address.Port() >= firstChosenPort
}

// named reports whether a word has the app's name in it, as a whole.
func named(app events.Slug, word string) bool {
	separate := "-" + parts.ReplaceAllString(word, "-") + "-"
	return strings.Contains(separate, "-"+string(app)+"-")
}
