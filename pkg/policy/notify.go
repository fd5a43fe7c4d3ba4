package policy

import (
	"fmt"
	"net/url"
	"path/filepath"
	"slices"

	"go.yaml.in/yaml/v3"

	"towpath.dev/events"
)

// receivers reads who is told. An address is a secret more often than not, so no fault repeats it.
func (r reader) receivers(node *yaml.Node, key string) []Receiver {
	var all []Receiver
	first := map[string]int{} // name → line
	r.Items(node, key, "receivers", 0, maxReceivers, func(n *yaml.Node, key string) {
		one := Receiver{Kinds: slices.Clone(NoticeKinds)}
		r.Fields(n, key, fields{
			"name": func(n *yaml.Node, key string) {
				one.Name = r.Matching(n, key, 63, "1–63 of a–z, 0–9 and '-', not at either end", func(s string) bool { _, err := events.ParseSlug(s); return err == nil })
				if line, ok := first[one.Name]; ok && one.Name != "" {
					r.Fault(n, key, fmt.Sprintf("given twice, first on line %d", line), one.Name, "")
				}
				first[one.Name] = n.Line
			},
			"url": func(n *yaml.Node, key string) {
				one.URL, _ = r.Text(n, key, maxText)
				if u, err := url.Parse(one.URL); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
					r.Fault(n, key, "must be https://host/path or http://host/path", "", "keep a secret address in a file, and name that with urlFile")
				}
			},
			"urlFile": func(n *yaml.Node, key string) {
				var ok bool
				if one.URLFile, ok = r.Text(n, key, maxText); ok && !filepath.IsAbs(one.URLFile) {
					r.Fault(n, key, "must be an absolute path of a file that holds the address", "", "") // it may be the address
				}
			},
			"kinds": func(n *yaml.Node, key string) {
				one.Kinds = nil
				r.Items(n, key, "kinds", 1, len(NoticeKinds), func(n *yaml.Node, key string) {
					one.Kinds = append(one.Kinds, r.OneOf(n, key, NoticeKinds...))
				})
			},
		})
		if n.Kind == yaml.MappingNode && (one.Name == "" || (one.URL == "") == (one.URLFile == "")) {
			r.Fault(n, key, "name and one of url and urlFile must be given", "", "")
		}
		all = append(all, one)
	})
	return all
}
