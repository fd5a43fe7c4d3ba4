package faults

import (
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"towpath.dev/pkg/worker/boundary"
)

// report is a campaign as a table: who died where and how often, and what became of the runs.
func report(o options, deaths []death, resumed []resumption, runs, records int, replayed []string, faults []fault, took time.Duration) string {
	var text strings.Builder
	fmt.Fprintf(&text, "%s, seed %d: %d runs, %d events, %d deaths in %s (%.2f runs/s)\n", o.shape, o.seed, runs, records, len(deaths),
		took.Round(time.Second), float64(runs)/took.Seconds())
	at := map[string]map[string]int{}
	outside := map[string]int{}
	sums := map[string]int{}
	var programs []string
	for _, d := range deaths {
		if d.named == nil {
			if outside[d.program]++; !slices.Contains(programs, d.program) {
				programs = append(programs, d.program)
			}
			continue
		}
		if at[d.named.service] == nil {
			at[d.named.service] = map[string]int{}
		}
		at[d.named.service][d.named.boundary]++
		sums[d.named.boundary]++
	}
	w := tabwriter.NewWriter(&text, 2, 8, 2, ' ', tabwriter.AlignRight)
	row := func(name string, count map[string]int) {
		fmt.Fprintf(w, "%s\t", name)
		for _, b := range boundary.All {
			fmt.Fprintf(w, "%d\t", count[string(b)])
		}
		fmt.Fprintln(w)
	}
	fmt.Fprint(w, "killed at\t")
	for _, b := range boundary.All {
		fmt.Fprintf(w, "%s\t", b)
	}
	fmt.Fprintln(w)
	for _, v := range victims {
		row(string(v.service), at[string(v.service)])
	}
	row("all", sums)
	w.Flush()
	slices.Sort(programs)
	fmt.Fprint(&text, "killed from outside:")
	for _, p := range programs {
		fmt.Fprintf(&text, " %s %d", p, outside[p])
	}
	fmt.Fprintln(&text)
	count := map[kind]int{}
	for _, f := range faults {
		count[f.kind]++
	}
	fmt.Fprintf(&text, "lost %d, doubled %d, contradictions %d, orphans %d\n", count[lost], count[doubled], count[contradiction], count[orphan])
	fmt.Fprintf(&text, "stages that an operator had to replay: %d\n", len(replayed))
	for _, r := range replayed {
		fmt.Fprintf(&text, "  %s\n", r)
	}
	var times []time.Duration
	for _, r := range resumed {
		times = append(times, r.after)
	}
	slices.Sort(times)
	if n := len(times); n > 0 {
		fmt.Fprintf(&text, "work taken up again %d times: p50 %s, p99 %s, max %s (bound %s)\n", n, times[n/2].Round(time.Millisecond),
			times[n*99/100].Round(time.Millisecond), times[n-1].Round(time.Millisecond), o.resume)
	}
	return text.String()
}
