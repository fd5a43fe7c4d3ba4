package vet

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"towpath.dev/events"
	"towpath.dev/pkg/policy"
	"towpath.dev/pkg/registry/provenance"
	"towpath.dev/services/vet/dockerfile"
	"towpath.dev/services/vet/layers"
)

// configFindings judge what the image says of how it is run.
func configFindings(c content) []events.Finding {
	if c.config == nil {
		return nil
	}
	var found []events.Finding
	add := func(rule policy.Rule, subject, fix, format string, args ...any) {
		f := newFinding(rule, fix, format, args...)
		f.Subject = tidy(subject, maxWord)
		found = append(found, f)
	}
	if who := rootBy(c.config.User, c.users); who != "" {
		add(policy.UserRoot, "", "add USER 65532:65532, or another user that is not root, as the last USER of the Dockerfile", "the image's processes run as root: %s", who)
	}
	var ports []string
	for port := range c.config.ExposedPorts {
		number, _, _ := strings.Cut(port, "/")
		if n, err := strconv.Atoi(number); err == nil && n > 0 && n < 1024 {
			ports = append(ports, port)
		}
	}
	slices.Sort(ports)
	for _, port := range ports {
		add(policy.PortPrivileged, port, "let the app listen on a port from 1024 up, and name that in EXPOSE and in towpath.yaml (service.port)",
			"the image exposes port %s, for which a process needs to be root", port)
	}
	if h := c.config.Healthcheck; h == nil || len(h.Test) == 0 || h.Test[0] == "NONE" {
		add(policy.HealthcheckMissing, "", "say in towpath.yaml how to tell that it is healthy: service: {health: /health}",
			"nothing says how to tell that the image's service is healthy")
	}
	return found
}

// rootBy says why an image's processes run as root; empty: they do not.
func rootBy(user string, users map[string]string) string {
	name, _, _ := strings.Cut(user, ":")
	id := cmp.Or(users[name], name)
	n, err := strconv.ParseUint(id, 10, 64)
	switch {
	case name == "":
		return "it names no user"
	case name == "root":
		return "its user is root"
	case err == nil && n == 0 && id == name:
		return "its user is " + user
	case err == nil && n == 0:
		return fmt.Sprintf("its user %s has the id 0", tidy(name, 40))
	}
	return ""
}

// privilegedFindings judge the programs that make whoever runs them somebody else. Those of the trusted base came with
// the trust in it, but for shells.
func privilegedFindings(c content, base *policy.Base) []events.Finding {
	var found []events.Finding
	for _, p := range c.privileged {
		rule, bit, as := policy.SetuidProgram, "setuid", "owner"
		if !p.User {
			bit, as = "setgid", "group"
		}
		fix := "take the bit away where it is not needed: RUN chmod a-s " + p.Path
		message := fmt.Sprintf("%s has the %s bit: whoever runs it runs it as its %s", p.Path, bit, as)
		switch {
		case p.Shell:
			rule = policy.SetuidShell
			message = fmt.Sprintf("%s is a shell or an interpreter with the %s bit: whoever runs it runs anything as its %s", p.Path, bit, as)
		case base != nil && slices.Contains(base.DiffIDs, p.Layer):
			continue
		}
		f := newFinding(rule, fix, "%s", message)
		f.Path, f.Layer = tidy(p.Path, maxWord), p.Layer
		found = append(found, f)
	}
	return found
}

// healthy drops what the run's definition makes up for: it says how to tell that the service is healthy.
func healthy(found []events.Finding, defined bool) []events.Finding {
	return slices.DeleteFunc(found, func(f events.Finding) bool { return defined && f.Rule == string(policy.HealthcheckMissing) })
}

// dockerfileFindings judge the Dockerfile that the image was built from, and say of what the image's configuration has
// where in it that stands.
func dockerfileFindings(found []events.Finding, p provenance.Predicate) []events.Finding {
	text, parameters := p.Dockerfile(), p.BuildDefinition.ExternalParameters
	if text == nil {
		return found
	}
	path := tidy(parameters.Dockerfile, maxWord)
	read, err := dockerfile.Read(text, dockerfile.Options{Args: parameters.Args, Target: parameters.Target, Digest: p.BaseDigest})
	if err != nil {
		f := newFinding(policy.DockerfileUnread, "find out how this was built, and whether the Dockerfile uses something new", "%s was built from and cannot be read: %v", path, err)
		f.Path = path
		return append(found, f)
	}
	for i, f := range found {
		switch policy.Rule(f.Rule) {
		case policy.UserRoot:
			found[i].Path, found[i].Line = path, read.UserLine()
		case policy.PortPrivileged:
			found[i].Path, found[i].Line = path, read.PortLine(f.Subject)
		case policy.HealthcheckMissing:
			found[i].Path, found[i].Line = path, read.StageLine()
		}
	}
	for _, d := range read.Findings() {
		f := newFinding(d.Rule, d.Fix, "%s", d.Message)
		f.Subject, f.Path, f.Line = tidy(d.Subject, maxWord), path, d.Line
		found = append(found, f)
	}
	return found
}

// fromSource reports whether a finding is about the source and not about the image.
func fromSource(f events.Finding) bool {
	return f.Class == string(policy.ClassProvenance) || f.Class == string(policy.ClassDockerfile) || f.Rule == string(policy.DockerfileUnread)
}

// withConfig adds what the image's own configuration and its programs' modes are.
func (c *content) withConfig(image *layers.Image) {
	c.faults, c.diffIDs, c.privileged, c.users = image.Faults, image.DiffIDs, image.Privileged, image.Users
	if image.Config != nil {
		c.config = &image.Config.Config
	}
}
