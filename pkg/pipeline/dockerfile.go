package pipeline

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"towpath.dev/pkg/strictyaml"
)

// image is what a Dockerfile says about the containers of its last stage.
type image struct {
	port          int
	portFrom      string // where the port was found, for people
	healthPath    string
	healthCommand []string
	env           map[string]string
	exposed       bool
}

var (
	heredoc     = regexp.MustCompile(`<<-?\s*["']?([A-Za-z_][A-Za-z0-9_]*)["']?`)
	portFlag    = regexp.MustCompile(`(?:^|[\s"',=])(?:-{1,2}[a-z-]*port[= "',]+|-p[= "',]+|[0-9.a-z\[\]]*:)([0-9]{2,5})(?:$|[\s"',\]])`)
	healthURL   = regexp.MustCompile(`https?://(?:localhost|127\.0\.0\.1|0\.0\.0\.0|\[::1?\]|\$\{?HOSTNAME\}?)(?::([0-9]+))?(/[A-Za-z0-9._~/?&=%-]*)?`)
	healthFlags = regexp.MustCompile(`^(?:--[a-z-]+=\S+\s+)*`)
	escapeLine  = regexp.MustCompile("(?i)^#\\s*escape\\s*=\\s*([\\\\`])\\s*$")
)

// readDockerfile reads the few instructions that Init needs and passes over all it does not know.
func readDockerfile(data []byte) image {
	stages := map[string]image{}
	global := map[string]string{}
	current, name := image{env: global}, ""
	for _, line := range logicalLines(string(data)) {
		instruction, rest, _ := strings.Cut(line, " ")
		rest = strings.TrimSpace(rest)
		if strings.EqualFold(instruction, "FROM") {
			stages[name] = current
			current, name = from(rest, stages, global)
			continue
		}
		current.instruction(strings.ToUpper(instruction), rest)
	}
	return current
}

// from begins a stage: on an earlier one with all it said, or on a foreign image with nothing.
func from(rest string, stages map[string]image, global map[string]string) (begun image, name string) {
	words := strings.Fields(rest)
	for len(words) > 0 && strings.HasPrefix(words[0], "--") {
		words = words[1:]
	}
	if len(words) >= 3 && strings.EqualFold(words[1], "AS") {
		name = strings.ToLower(words[2])
	}
	begun = image{env: maps.Clone(global)}
	if len(words) > 0 {
		if earlier, ok := stages[strings.ToLower(words[0])]; ok && words[0] != "" {
			begun = earlier
			begun.env = maps.Clone(earlier.env)
		}
	}
	return begun, name
}

func (i *image) instruction(name, rest string) {
	switch name {
	case "ARG", "ENV":
		i.setVariables(rest)
	case "EXPOSE":
		i.expose(rest)
	case "HEALTHCHECK":
		i.health(rest)
	case "CMD", "ENTRYPOINT":
		if match := portFlag.FindStringSubmatch(i.expand(rest)); match != nil && i.port == 0 {
			i.setPort(match[1], "from "+name+" in the Dockerfile")
		}
	}
}

// setVariables reads NAME=value pairs and the old form NAME value.
func (i *image) setVariables(rest string) {
	words := strings.Fields(rest)
	if len(words) == 2 && !strings.Contains(words[0], "=") {
		words = []string{words[0] + "=" + words[1]}
	}
	for _, word := range words {
		name, value, ok := strings.Cut(word, "=")
		if !ok || name == "" {
			continue
		}
		i.env[name] = i.expand(strings.Trim(value, `"'`))
		if name == "PORT" && i.port == 0 {
			i.setPort(i.env[name], "from PORT in the Dockerfile")
		}
	}
}

// expose takes the first TCP port; it counts for more than what CMD or PORT let guess.
func (i *image) expose(rest string) {
	for _, word := range strings.Fields(i.expand(rest)) {
		port, protocol, _ := strings.Cut(word, "/")
		port, _, _ = strings.Cut(port, "-")
		if (protocol == "" || strings.EqualFold(protocol, "tcp")) && !i.exposed {
			i.exposed = i.setPort(port, "EXPOSE in the Dockerfile")
		}
	}
}

func (i *image) setPort(text, where string) bool {
	port, err := strconv.Atoi(text)
	if err != nil || port < 1 || port > 65535 {
		return false
	}
	i.port, i.portFrom = port, where
	return true
}

// health takes the path of a check that asks the container itself over HTTP, else its command.
func (i *image) health(rest string) {
	i.healthPath, i.healthCommand = "", nil
	rest = strings.TrimSpace(healthFlags.ReplaceAllString(rest, ""))
	kind, command, _ := strings.Cut(rest, " ")
	command = strings.TrimSpace(command)
	if !strings.EqualFold(kind, "CMD") || command == "" || len(command) > maxArgument || strings.ContainsFunc(command, strictyaml.Unwritable) {
		return
	}
	if match := healthURL.FindStringSubmatch(i.expand(command)); match != nil && strings.Count(command, "://") == 1 {
		i.healthPath = match[2]
		if match[2] == "" || strings.HasPrefix(match[2], "//") {
			i.healthPath = "/"
		}
		if i.port == 0 {
			i.setPort(match[1], "from HEALTHCHECK in the Dockerfile")
		}
	}
	if err := json.Unmarshal([]byte(command), &i.healthCommand); err == nil {
		bad := func(argument string) bool { return strings.ContainsFunc(argument, strictyaml.Unwritable) }
		if len(i.healthCommand) == 0 || i.healthCommand[0] == "" || len(i.healthCommand) > maxArguments ||
			slices.ContainsFunc(i.healthCommand, bad) {
			i.healthCommand = nil
		}
		return
	}
	i.healthCommand = []string{"/bin/sh", "-c", command}
}

// expand replaces $NAME and ${NAME} with what ARG and ENV gave; ${NAME:-default} with its default.
func (i *image) expand(text string) string {
	return os.Expand(text, func(name string) string {
		name, fallback, _ := strings.Cut(name, ":-")
		if value, ok := i.env[name]; ok && value != "" {
			return value
		}
		return fallback
	})
}

// logicalLines joins continued lines and leaves out comments and the bodies of here-documents.
func logicalLines(text string) (lines []string) {
	escape := `\`
	var joined strings.Builder
	var endings []string
	for n, line := range strings.Split(strings.ReplaceAll(text, "\r\n", "\n"), "\n") {
		trimmed := strings.TrimSpace(line)
		if match := escapeLine.FindStringSubmatch(trimmed); match != nil && n == len(lines) {
			escape = match[1]
		}
		if len(endings) > 0 {
			if trimmed == endings[0] {
				endings = endings[1:]
			}
			continue
		}
		if trimmed == "" || strings.HasPrefix(trimmed, "#") {
			continue
		}
		if before, continued := strings.CutSuffix(trimmed, escape); continued {
			fmt.Fprintf(&joined, "%s ", before)
			continue
		}
		joined.WriteString(trimmed)
		whole := joined.String()
		joined.Reset()
		lines = append(lines, strings.ReplaceAll(whole, "\t", " "))
		switch word, _, _ := strings.Cut(strings.ToUpper(whole), " "); word {
		case "RUN", "COPY", "ADD":
			for _, match := range heredoc.FindAllStringSubmatch(whole, -1) {
				endings = append(endings, match[1])
			}
		}
	}
	return lines
}
