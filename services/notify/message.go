package notify

import (
	"encoding/json"
	"fmt"
	"strings"
	"unicode/utf8"
)

// Headers by which a receiver that is a program tells notifications apart. The same id is the same notification: it may
// come more than once.
const (
	HeaderID   = "Towpath-Notification-Id"
	HeaderKind = "Towpath-Kind"
	HeaderRun  = "Towpath-Run"
	HeaderEnv  = "Towpath-Environment"
	HeaderAct  = "Towpath-Command"
)

// message is a notification in the shape that Slack's incoming webhooks take, and others after them.
type message struct {
	Text   string  `json:"text"`
	Blocks []block `json:"blocks"`
}

type block struct {
	Type string `json:"type"`
	Text text   `json:"text"`
}

type text struct {
	Type string `json:"type"`
	Text string `json:"text"`
}

const (
	maxDetail = 1500 // bytes; a block's text has room for 3,000 characters
	// KindLeftOut is of the notification that says how many others were left out.
	KindLeftOut = "left-out"
)

// body is what is posted for a notice. link is the address of its run's page; it may be empty.
func body(n notice, link string) []byte {
	m := message{Text: escape(n.Text)}
	section := func(s string) { m.Blocks = append(m.Blocks, block{"section", text{"mrkdwn", s}}) }
	headline := "*" + escape(n.Text) + "*"
	if link != "" {
		headline = "*<" + escape(link) + "|" + escape(n.Text) + ">*"
	}
	section(headline)
	if n.Detail != "" {
		section("```" + code(cut(n.Detail, maxDetail)) + "```")
	}
	if n.Command != "" {
		section("→ `" + code(n.Command) + "`")
	}
	data, err := json.Marshal(m)
	if err != nil {
		panic(err) // strings alone
	}
	return data
}

// leftOut says that notices were not sent.
func leftOut(count int, seq uint64) notice {
	return notice{
		Kind: KindLeftOut, Seq: seq, left: count,
		Text:    fmt.Sprintf("%d older notifications were left out: they could not be delivered in time", count),
		Command: "towpath stuck",
	}
}

// escape keeps a text from being read as Slack's markup.
func escape(s string) string {
	return strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;").Replace(s)
}

// code is a text between backquotes.
func code(s string) string { return strings.ReplaceAll(escape(s), "`", "'") }

// cut shortens a text to a number of bytes, at a character's boundary.
func cut(s string, most int) string {
	if len(s) <= most {
		return s
	}
	for most > 0 && !utf8.RuneStart(s[most]) {
		most--
	}
	return s[:most] + " …"
}
