package view

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	"towpath.dev/events"
	"towpath.dev/pkg/discovery"
	"towpath.dev/pkg/ledger/fold"
)

// TrafficDifference compares the table of what gets traffic with the greatest live slots, and returns how many places
// there are and the first in which they differ; empty: none. Addresses are the engines' to give, and change when one is
// started again; what answers there is named by its instance. Environments that are being destroyed, which ending
// reports, may have lost their entries already.
func TrafficDifference(apps []*fold.App, table map[discovery.Place]discovery.Entry, ending func(env events.Slug) bool) (places int, difference string) {
	want := map[discovery.Place]*fold.Slot{}
	for _, a := range apps {
		for env, e := range a.Envs {
			if live := e.Live(); live != nil && !e.Gone {
				want[discovery.Place{Env: env, App: a.Name}] = live
			}
		}
	}
	all := maps.Clone(table)
	for p := range want {
		all[p] = table[p]
	}
	for _, p := range slices.SortedFunc(maps.Keys(all), comparePlaces) {
		entry, there := table[p]
		live := want[p]
		switch {
		case ending(p.Env) && (live == nil || !there):
			continue
		case live == nil:
			return len(all), fmt.Sprintf("%s: the table has slot %d, the ledger no live one", p, entry.Slot)
		case !there:
			return len(all), fmt.Sprintf("%s: the table lacks slot %d", p, live.N)
		}
		if d := entryDifference(entry, live); d != "" {
			return len(all), p.String() + ": " + d
		}
	}
	return len(all), ""
}

func comparePlaces(a, b discovery.Place) int {
	return cmp.Or(cmp.Compare(a.App, b.App), cmp.Compare(a.Env, b.Env))
}

func entryDifference(entry discovery.Entry, live *fold.Slot) string {
	ids := func(instances []events.Instance) []string {
		var all []string
		for _, i := range instances {
			all = append(all, i.ID)
		}
		return all
	}
	removed := live.Kind == events.KindRemove
	switch {
	case entry.Slot != live.N:
		return fmt.Sprintf("slot: the table has %d, the ledger %d", entry.Slot, live.N)
	case entry.Removed != removed:
		return fmt.Sprintf("removed: the table has %t, the ledger %t", entry.Removed, removed)
	case removed:
		return ""
	case entry.Digest != live.Digest:
		return fmt.Sprintf("digest: the table has %s, the ledger %s", entry.Digest, live.Digest)
	case !slices.Equal(ids(entry.Instances), ids(live.Instances)):
		return fmt.Sprintf("instances: the table has %q, the ledger %q", ids(entry.Instances), ids(live.Instances))
	}
	return ""
}
