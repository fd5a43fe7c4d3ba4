package policy

import (
	"fmt"
	"net"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"towpath.dev/events"
	"towpath.dev/pkg/strictyaml"
)

// Bounds of a platform file.
const (
	MaxSize = 1 << 20 // bytes

	maxText         = 4 << 10
	maxEnvironments = 100
	maxBases        = 1000
	maxLayers       = 200
	maxLicences     = 1000
	maxApprovals    = 20
	maxRoles        = 50
	maxReceivers    = 50
	maxDeadline     = 24 * time.Hour
	maxConditions   = 200
	maxExamples     = 50
	maxMessage      = 300
	maxPolicyText   = 192 << 10 // an event holds it
)

var (
	diffIDPattern     = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)
	witnessKeyPattern = regexp.MustCompile(`^[^ +]+\+[0-9a-f]{8}\+[A-Za-z0-9+/]+=*$`)
	addressPattern    = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9.-]*(:[0-9]{1,5})?(/[a-z0-9]+([._-][a-z0-9]+)*)*$`)
)

// Parse reads a platform file over Default: what it leaves out stays as it is there, a list that it
// gives replaces the default's, and so does each row of a table. name is how errors call the file. Every
// error is a *strictyaml.Faults with all that is wrong. A file of nothing but comments is the default platform.
func Parse(name string, data []byte) (*Platform, error) {
	p := Default()
	if blank(data) {
		return p, nil
	}
	yamlReader, root := strictyaml.Open(name, data, strictyaml.Limits{Size: MaxSize, Depth: 8, Nodes: 64 << 10})
	r := reader{yamlReader}
	if root != nil {
		r.platform(root, p)
		if size := len(p.Policy.Text()); size > maxPolicyText {
			r.Fault(root, "policy", fmt.Sprintf("its text has %d bytes, allowed are %d", size, maxPolicyText), "", "")
		}
	}
	if err := r.Err(); err != nil {
		return nil, err
	}
	return p, nil
}

// blank reports whether data has nothing but empty lines and comments.
func blank(data []byte) bool {
	for line := range strings.Lines(string(data)) {
		if line = strings.TrimSpace(line); line != "" && line[0] != '#' {
			return false
		}
	}
	return true
}

// reader knows the schema of a platform file.
type reader struct{ *strictyaml.Reader }

type fields = map[string]strictyaml.Field

func (r reader) platform(node *yaml.Node, p *Platform) {
	r.Fields(node, "", fields{
		"engines":  func(n *yaml.Node, key string) { r.engines(n, key, &p.Engines) },
		"registry": func(n *yaml.Node, key string) { r.registry(n, key, &p.Registry) },
		"witness":  func(n *yaml.Node, key string) { r.witness(n, key, &p.Witness) },
		"limits":   func(n *yaml.Node, key string) { r.limits(n, key, &p.Limits) },
		"vet":      func(n *yaml.Node, key string) { r.vet(n, key, &p.Vet) },
		"notify":   func(n *yaml.Node, key string) { p.Notify = r.receivers(n, key) },
		"settings": func(n *yaml.Node, key string) {
			r.environments(n, key, func(env events.Slug, n *yaml.Node, key string) { p.Settings[env] = r.stores(n, key) })
		},
		"policy": func(n *yaml.Node, key string) { r.policy(n, key, p) },
	})
}

func (r reader) engines(node *yaml.Node, key string, e *Engines) {
	r.Fields(node, key, fields{
		"build": func(n *yaml.Node, key string) { e.Build = r.engine(n, key, true) },
		"environments": func(n *yaml.Node, key string) {
			r.environments(n, key, func(env events.Slug, n *yaml.Node, key string) {
				e.Environments[env] = r.engine(n, key, false)
			})
		},
	})
}

// environments reads a table by environment.
func (r reader) environments(node *yaml.Node, key string, read func(env events.Slug, n *yaml.Node, key string)) {
	r.Entries(node, key, "environments", maxEnvironments, func(name, value *yaml.Node, key string) {
		env, err := events.ParseSlug(name.Value)
		if err != nil {
			r.Fault(name, key, "an environment's name is 1–63 of a–z, 0–9 and '-', not at either end", name.Value, "")
			return
		}
		read(env, value, key)
	})
}

func (r reader) engine(node *yaml.Node, key string, build bool) Engine {
	e := Engine{Host: localEngine}
	known := fields{
		"host": func(n *yaml.Node, key string) { e.Host = r.host(n, key) },
		"tls":  func(n *yaml.Node, key string) { e.TLS = r.tls(n, key) },
	}
	if build {
		known["dedicated"] = func(n *yaml.Node, key string) { e.Dedicated = r.Bool(n, key) }
	} else {
		known["publish"] = func(n *yaml.Node, key string) {
			e.Publish = r.Matching(n, key, maxText, "an IP address of the engine's machine", func(s string) bool { return net.ParseIP(s) != nil })
		}
	}
	r.Fields(node, key, known)
	switch tcp := strings.HasPrefix(e.Host, "tcp://"); {
	case tcp && e.TLS == (TLS{}):
		r.Fault(node, key, "tcp:// needs tls with ca, cert and key: an engine without them gives root to anybody who reaches it", e.Host, "")
	case !tcp && e.Host != "" && e.TLS != (TLS{}):
		r.Fault(node, key, "only tcp:// takes tls", e.Host, "")
	}
	return e
}

func (r reader) host(node *yaml.Node, key string) string {
	text, ok := r.Text(node, key, maxText)
	if !ok || isHost(text) {
		return text
	}
	got := text
	if strings.Contains(text, "@") {
		got = "" // there may be a password in it
	}
	r.Fault(node, key, "must be unix:///absolute/path, ssh://[user@]host[:port] without a password, or tcp://host:port", got, "")
	return ""
}

func isHost(s string) bool {
	u, err := url.Parse(s)
	if err != nil || u.RawQuery != "" || u.Fragment != "" {
		return false
	}
	switch u.Scheme {
	case "unix":
		return u.Host == "" && strings.HasPrefix(u.Path, "/")
	case "ssh":
		_, password := u.User.Password()
		return u.Hostname() != "" && !password
	case "tcp":
		port, err := strconv.Atoi(u.Port())
		return u.Hostname() != "" && u.User == nil && err == nil && port >= 1 && port <= 65535
	}
	return false
}

func (r reader) tls(node *yaml.Node, key string) TLS {
	var t TLS
	file := func(to *string) strictyaml.Field {
		return func(n *yaml.Node, key string) {
			*to = r.Matching(n, key, maxText, "the path of a PEM file", func(s string) bool { return s != "" })
		}
	}
	r.Fields(node, key, fields{"ca": file(&t.CA), "cert": file(&t.Cert), "key": file(&t.Key)})
	if node.Kind == yaml.MappingNode && (t.CA == "" || t.Cert == "" || t.Key == "") {
		r.Fault(node, key, "all of ca, cert and key must be given", "", "")
	}
	return t
}

func (r reader) witness(node *yaml.Node, key string, w *Witness) {
	r.Fields(node, key, fields{
		"url": func(n *yaml.Node, key string) {
			w.URL = r.Matching(n, key, maxText, "http:// or https:// and the witness's host", func(s string) bool {
				u, err := url.Parse(s)
				return s == "" || err == nil && u.Host != "" && u.User == nil && (u.Scheme == "http" || u.Scheme == "https")
			})
		},
		"key": func(n *yaml.Node, key string) {
			w.Key = r.Matching(n, key, maxText, "the key that `towpath witness` printed: name+id+base64", func(s string) bool {
				return s == "" || witnessKeyPattern.MatchString(s)
			})
		},
	})
	if (w.URL == "") != (w.Key == "") {
		r.Fault(node, key, "a witness has both a url and a key", "", "")
	}
}

func (r reader) registry(node *yaml.Node, key string, reg *Registry) {
	r.Fields(node, key, fields{
		"address": func(n *yaml.Node, key string) {
			reg.Address = r.Matching(n, key, 255, `host[:port][/path] in lower case, without "https://"`, func(s string) bool {
				return s == "" || addressPattern.MatchString(s)
			})
		},
	})
}

func (r reader) vet(node *yaml.Node, key string, v *Vet) {
	r.Fields(node, key, fields{
		"clamd": func(n *yaml.Node, key string) {
			v.Clamd = r.Matching(n, key, maxText, "unix:///absolute/path or tcp://host:port", func(s string) bool {
				return s == "" || isHost(s) && !strings.HasPrefix(s, "ssh:")
			})
		},
		"signatures": func(n *yaml.Node, key string) {
			v.Signatures = r.Matching(n, key, maxText, "the absolute path of a folder", func(s string) bool { return s == "" || strings.HasPrefix(s, "/") })
		},
	})
}

func (r reader) limits(node *yaml.Node, key string, l *Limits) {
	r.Fields(node, key, fields{
		"build": func(n *yaml.Node, key string) {
			r.Fields(n, key, fields{
				"timeout": func(n *yaml.Node, key string) { l.Build.Timeout = r.Duration(n, key, time.Second, maxDeadline) },
				"memory":  func(n *yaml.Node, key string) { l.Build.Memory = r.Size(n, key, 64<<20, 16<<40) },
				"cpus":    func(n *yaml.Node, key string) { l.Build.CPUs = r.Decimal(n, key, 0.1, 1024) },
				"pids":    func(n *yaml.Node, key string) { l.Build.PIDs = r.Integer(n, key, 16, 4<<20) },
			})
		},
		"push":  func(n *yaml.Node, key string) { l.Push = r.Size(n, key, 1<<20, 1<<40) },
		"image": func(n *yaml.Node, key string) { l.Image = r.Size(n, key, 1<<20, 16<<40) },
		"files": func(n *yaml.Node, key string) { l.Files = r.Integer(n, key, 1000, 100_000_000) },
	})
}

func (r reader) policy(node *yaml.Node, key string, platform *Platform) {
	p := &platform.Policy
	r.Fields(node, key, fields{
		"bases":      func(n *yaml.Node, key string) { p.Bases = r.bases(n, key) },
		"licences":   func(n *yaml.Node, key string) { r.licences(n, key, &p.Licences) },
		"rules":      func(n *yaml.Node, key string) { r.rules(n, key, p.Rules) },
		"conditions": func(n *yaml.Node, key string) { r.conditions(n, key, platform) },
		"approvals":  func(n *yaml.Node, key string) { r.approvals(n, key, p.Approvals) },
		"deadlines": func(n *yaml.Node, key string) {
			deadline := func(to *time.Duration) strictyaml.Field {
				return func(n *yaml.Node, key string) { *to = r.Duration(n, key, time.Second, maxDeadline) }
			}
			r.Fields(n, key, fields{
				"build": deadline(&p.Deadlines.Build), "vet": deadline(&p.Deadlines.Vet),
				"promote": deadline(&p.Deadlines.Promote), "verify": deadline(&p.Deadlines.Verify),
			})
		},
		"maySkip":    func(n *yaml.Node, key string) { p.MaySkip = r.slugs(n, key, "environments", maxEnvironments) },
		"skipVerify": func(n *yaml.Node, key string) { p.SkipVerify = r.slugs(n, key, "environments", maxEnvironments) },
	})
}

func (r reader) bases(node *yaml.Node, key string) []Base {
	bases := []Base{}
	first := map[string]int{} // name → line
	r.Items(node, key, "bases", 0, maxBases, func(n *yaml.Node, key string) {
		b := Base{}
		r.Fields(n, key, fields{
			"name": func(n *yaml.Node, key string) {
				b.Name, _ = r.Text(n, key, 255)
				if line, ok := first[b.Name]; ok {
					r.Fault(n, key, fmt.Sprintf("given twice, first on line %d", line), b.Name, "")
				}
				first[b.Name] = n.Line
			},
			"diffIDs": func(n *yaml.Node, key string) {
				r.Items(n, key, "layers, the lowest first", 1, maxLayers, func(n *yaml.Node, key string) {
					b.DiffIDs = append(b.DiffIDs, r.Matching(n, key, 80, "sha256: and 64 lower-case hexadecimal digits",
						diffIDPattern.MatchString))
				})
			},
		})
		if n.Kind == yaml.MappingNode && (b.Name == "" || len(b.DiffIDs) == 0) {
			r.Fault(n, key, "name and diffIDs must be given", "", "docker image inspect -f '{{json .RootFS.Layers}}' IMAGE prints the diffIDs")
		}
		bases = append(bases, b)
	})
	return bases
}

func (r reader) licences(node *yaml.Node, key string, l *Licences) {
	list := func(to *[]string) strictyaml.Field {
		return func(n *yaml.Node, key string) {
			*to = []string{}
			r.Items(n, key, "SPDX licence ids", 0, maxLicences, func(n *yaml.Node, key string) {
				entry, ok := r.Text(n, key, 255)
				if !ok {
					return
				}
				if wrong := checkEntry(entry); wrong != "" {
					r.Fault(n, key, wrong+"; allowed: an id such as MIT, an id WITH an exception, LicenseRef-name, or the beginning of ids and *", entry, nearLicence(entry))
					return
				}
				*to = append(*to, canonicalEntry(entry))
			})
			slices.Sort(*to)
			*to = slices.Compact(*to)
		}
	}
	r.Fields(node, key, fields{
		"deny": list(&l.Deny), "review": list(&l.Review), "allow": list(&l.Allow),
		"others": func(n *yaml.Node, key string) {
			l.Others = Disposition(r.OneOf(n, key, string(Allow), string(Review), string(Deny)))
		},
	})
}

func (r reader) rules(node *yaml.Node, key string, rules map[Rule]Effects) {
	known := fields{}
	for _, info := range Rules {
		known[string(info.Rule)] = func(n *yaml.Node, key string) { rules[info.Rule] = r.effects(n, key) }
	}
	r.Fields(node, key, known)
}

// effects reads one verdict for every environment, or a table of them.
func (r reader) effects(node *yaml.Node, key string) Effects {
	verdict := func(n *yaml.Node, key string) events.Verdict {
		return events.Verdict(r.OneOf(n, key, string(events.Pass), string(events.Warn), string(events.Fail)))
	}
	if node.Kind != yaml.MappingNode {
		return everywhere(verdict(node, key))
	}
	effects := Effects{}
	r.environments(node, key, func(env events.Slug, n *yaml.Node, key string) { effects[env] = verdict(n, key) })
	if _, ok := effects[DefaultEnvironment]; !ok {
		r.Fault(node, key, "default must be given: it counts for the environments that are not named here", "", "add default: fail")
		effects[DefaultEnvironment] = events.Fail
	}
	return effects
}

func (r reader) approvals(node *yaml.Node, key string, approvals map[events.Slug]Approval) {
	r.environments(node, key, func(env events.Slug, n *yaml.Node, key string) {
		var a Approval
		counted := false
		r.Fields(n, key, fields{
			"count": func(n *yaml.Node, key string) {
				a.Count, counted = r.Integer(n, key, 0, maxApprovals), true
			},
			"authorMayApprove": func(n *yaml.Node, key string) { a.AuthorMayApprove = r.Bool(n, key) },
			"approvers": func(n *yaml.Node, key string) {
				for _, role := range r.slugs(n, key, "roles", maxRoles) {
					a.Approvers = append(a.Approvers, string(role))
				}
			},
		})
		if n.Kind == yaml.MappingNode && !counted {
			r.Fault(n, key, "count must be given: how many people have to approve", "", "")
		}
		approvals[env] = a
	})
}

// slugs reads a list of names, and sorts it.
func (r reader) slugs(node *yaml.Node, key, what string, most int) []events.Slug {
	var names []events.Slug
	r.Items(node, key, what, 0, most, func(n *yaml.Node, key string) { names = append(names, r.slug(n, key)) })
	slices.Sort(names)
	return slices.Compact(names)
}

func (r reader) slug(node *yaml.Node, key string) events.Slug {
	return events.Slug(r.Matching(node, key, 255, "a name of 1–63 of a–z, 0–9 and '-', not at either end", func(s string) bool {
		_, err := events.ParseSlug(s)
		return err == nil
	}))
}
