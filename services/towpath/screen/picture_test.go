package screen

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"towpath.dev/services/gateway/view"
)

var update = flag.Bool("update", false, "write the goldens anew")

// Each fixture is drawn on a wide terminal, on a narrow one, and into a pipe.
func TestRun(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 2, 13, 0, time.UTC)
	fixtures, err := filepath.Glob("testdata/*.json")
	if err != nil || len(fixtures) == 0 {
		t.Fatalf("no fixtures: %v", err)
	}
	for _, fixture := range fixtures {
		t.Run(filepath.Base(fixture), func(t *testing.T) {
			data, err := os.ReadFile(fixture)
			if err != nil {
				t.Fatal(err)
			}
			var run view.Run
			if err := json.Unmarshal(data, &run); err != nil {
				t.Fatal(err)
			}
			var got bytes.Buffer
			for _, s := range []Screen{{Width: 80}, {Width: 48}, {}} {
				fmt.Fprintf(&got, "-- %d columns\n", s.Width)
				for _, line := range s.Run(run, now) {
					if s.Width > 0 && width(line) > s.Width && !strings.Contains(line, "→") && !strings.Contains(line, "image") {
						t.Errorf("%d columns on a terminal of %d: %q", width(line), s.Width, line)
					}
					fmt.Fprintln(&got, line)
				}
			}
			compare(t, strings.TrimSuffix(fixture, ".json")+".golden", got.Bytes())
			painted := strings.Join(Screen{Width: 80, Colour: true}.Run(run, now), "\n")
			if plain := strings.Join(Screen{Width: 80}.Run(run, now), "\n"); stripped(painted) != plain {
				t.Errorf("colour changes the text:\n%q\n%q", stripped(painted), plain)
			}
		})
	}
}

func compare(t *testing.T, golden string, got []byte) {
	t.Helper()
	if *update {
		if err := os.WriteFile(golden, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s differs (go test -update writes it anew); got:\n%s", golden, got)
	}
}

// stripped removes the escape sequences that Paint writes.
func stripped(text string) string {
	var b strings.Builder
	for text != "" {
		before, after, found := strings.Cut(text, "\x1b[")
		b.WriteString(before)
		if !found {
			break
		}
		_, text, _ = strings.Cut(after, "m")
	}
	return b.String()
}

func TestTook(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-time.Second: "0s", 0: "0ms", 80 * time.Millisecond: "80ms", 1449 * time.Millisecond: "1.4s", 2 * time.Second: "2s",
		12300 * time.Millisecond: "12s", 133 * time.Second: "2m13s", 3*time.Hour + 5*time.Minute: "3h05m", 76 * time.Hour: "3d4h",
	} {
		if got := Took(d); got != want {
			t.Errorf("Took(%v) = %q, want %q", d, got, want)
		}
	}
}

func TestTable(t *testing.T) {
	var out bytes.Buffer
	s := Screen{Out: &out, Width: 40}
	table := Table{Heading: []string{"RUN", "STATUS", "WHY"}}
	table.Add(Text("hello/1"), In(Green, "done"), Text(""))
	table.Add(Text("hello/12"), In(Red, "failed"), Text("%s", "a text\nthat is longer than there is room for"))
	s.Table(table)
	want := "RUN       STATUS  WHY\nhello/1   done\nhello/12  failed  a text that is longer…\n"
	if out.String() != want {
		t.Errorf("got:\n%s\nwant:\n%s", out.String(), want)
	}
}

func TestLiveIsSilentInAPipe(t *testing.T) {
	var out bytes.Buffer
	live := Screen{Out: &out}.NewLive()
	live.Draw([]string{"one"})
	live.Clear()
	if out.Len() > 0 {
		t.Errorf("wrote %q", out.String())
	}
}

func TestLiveDrawsOverItself(t *testing.T) {
	var out bytes.Buffer
	live := Screen{Out: &out, Terminal: true, Width: 5}.NewLive()
	live.Draw([]string{"1234567", "two"})
	live.Draw([]string{"\x1b[31m1234567\x1b[0m"})
	want := "12345\x1b[K\ntwo\x1b[K\n\x1b[J" + "\x1b[2A\r\x1b[31m12345\x1b[0m\x1b[K\n\x1b[J"
	if out.String() != want {
		t.Errorf("got  %q\nwant %q", out.String(), want)
	}
}
