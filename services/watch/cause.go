package watch

import (
	"net/netip"
	"regexp"
	"strings"

	"towpath.dev/events"
	"towpath.dev/pkg/ledger/fold"
)

// longestCause is how much of an error makes a cause, in bytes.
const longestCause = 240

// causeOf is why an attempt ended, in words that are the same for every stage that is stuck for the same
// reason: what was done and why it failed, on no matter what.
func causeOf(run *fold.Run, t *events.Trouble) string {
	text := t.What
	if t.Why != "" {
		text += ": " + t.Why
	}
	return cause(run, text)
}

// cause takes out of an error's first line what differs from run to run: the app's name and whatever it
// is part of, digests and ids, moments and durations, and ports that the system chose.
func cause(run *fold.Run, text string) string {
	text, _, _ = strings.Cut(strings.TrimSpace(text), "\n")
	text = moments.ReplaceAllString(text, other)
	var words []string
	for word := range strings.FieldsSeq(text) {
		if differs(run, word) {
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
	hex      = regexp.MustCompile(`[0-9a-f]{7,}`)
	digit    = regexp.MustCompile(`[0-9]`)
	parts    = regexp.MustCompile(`[^a-z0-9]+`)
)

// firstChosenPort is where the ports begin that systems choose.
const firstChosenPort = 32768

func differs(run *fold.Run, word string) bool {
	core := strings.TrimRight(strings.TrimLeft(word, opening), closing)
	if duration.MatchString(core) || strings.Contains(core, "->") || named(run.App, word) {
		return true
	}
	for _, h := range hex.FindAllString(word, -1) {
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
