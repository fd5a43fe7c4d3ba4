package pipeline

import (
	"encoding/json"
	"fmt"
	"strings"
)

// Init writes a towpath.yaml, with comments, for a folder that holds a Dockerfile. The port comes from EXPOSE, or
// else from CMD, ENTRYPOINT or ENV PORT; health comes from HEALTHCHECK. What it returns is always valid.
func Init(dockerfile []byte, folderName string) []byte {
	image := readDockerfile(dockerfile)
	var b strings.Builder
	line := func(setting, comment string) {
		if comment == "" {
			b.WriteString(setting + "\n")
			return
		}
		fmt.Fprintf(&b, "%-38s # %s\n", setting, comment)
	}
	line("app: "+slugOf(folderName), "the name in runs, host names and containers")
	line("branch: main", "pushes to this branch start runs")
	line("build: {dockerfile: Dockerfile, context: .}", "")
	line("service:", "")
	if image.port > 0 {
		line(fmt.Sprintf("  port: %d", image.port), image.portFrom)
	} else {
		line("  # port: 8080", "the Dockerfile names no port: set it, or leave it out for a queue worker")
	}
	switch {
	case image.healthPath != "" && image.port > 0:
		line("  health: "+quote(image.healthPath), "from HEALTHCHECK; 2xx or 3xx is healthy")
	case len(image.healthCommand) > 0:
		line("  health: {command: "+quote(image.healthCommand)+"}", "from HEALTHCHECK; exit status 0 is healthy")
	case image.port > 0:
		line("  # health: /health", "without it a replica is healthy when its port accepts a connection")
	default:
		line("  # health: {command: [/app, healthy]}", "without it a replica is healthy while it runs")
	}
	line("  replicas: 2", "")
	line("# release: [/app, migrate]", "once per promotion, before the switch")
	line("config: []", "names that every environment must have, such as [DATABASE_URL]")
	line("secrets: []", "the same for secrets; each is a file in the container")
	line("environments:", "in order; the same image moves through all")
	line("  - name: dev", "")
	line("  - name: qa", "")
	if image.port > 0 {
		line("    # verify: [{http: {path: /, status: 200}}]", "checks after the deploy")
	} else {
		line("    # verify: [{command: [/app, selftest]}]", "checks after the deploy")
	}
	line("  - name: prod", "")
	return []byte(b.String())
}

// quote writes a text or a list of texts as JSON, which YAML reads.
func quote(value any) string {
	data, err := json.Marshal(value)
	if err != nil {
		panic("pipeline: texts can be written as JSON: " + err.Error())
	}
	return string(data)
}

// slugOf makes the nearest slug of any name, "app" where nothing is left of it.
func slugOf(name string) string {
	var b strings.Builder
	for _, c := range strings.ToLower(name) {
		switch {
		case c >= 'a' && c <= 'z', c >= '0' && c <= '9':
			b.WriteRune(c)
		case b.Len() > 0 && !strings.HasSuffix(b.String(), "-"):
			b.WriteByte('-')
		}
		if b.Len() == 40 {
			break
		}
	}
	if slug := strings.Trim(b.String(), "-"); slug != "" {
		return quoteNumber(slug)
	}
	return "app"
}

// quoteNumber keeps a slug that YAML would read as a number or word of its own a text.
func quoteNumber(slug string) string {
	if strings.IndexFunc(slug, func(c rune) bool { return c >= 'g' && c <= 'z' && c != 'o' && c != 'x' }) < 0 || slug == "null" || slug == "true" {
		return quote(slug)
	}
	return slug
}
