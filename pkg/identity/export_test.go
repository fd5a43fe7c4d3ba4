package identity

import "slices"

// Verbs returns every verb, sorted.
func Verbs() []Verb {
	var all []Verb
	for v := range allowed {
		all = append(all, v)
	}
	slices.Sort(all)
	return all
}
