package towpath

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"towpath.dev/pkg/policy"
)

var defaultHost = regexp.MustCompile(`(?m)^( +)host: unix:///var/run/docker\.sock$`)

// platformText is the platform file that is written where there is none: the default, with the Engine
// that DOCKER_HOST names, because that is the one which this person uses.
func platformText(dockerHost, certificates string) string {
	text := string(policy.DefaultText)
	if dockerHost == "" {
		return text
	}
	line := "${1}host: " + strings.ReplaceAll(dockerHost, "$", "$$")
	if strings.HasPrefix(dockerHost, "tcp://") {
		pem := func(name string) string { return fmt.Sprintf("%q", filepath.Join(certificates, name)) }
		line += fmt.Sprintf("\n${1}tls: {ca: %s, cert: %s, key: %s}", pem("ca.pem"), pem("cert.pem"), pem("key.pem"))
	}
	return defaultHost.ReplaceAllString(text, line)
}

// FirstPlatform is the platform file that a first start would write.
func FirstPlatform() string { return platformText(dockerEnvironment()) }

// dockerEnvironment is what Docker's own client would use.
func dockerEnvironment() (host, certificates string) {
	certificates = os.Getenv("DOCKER_CERT_PATH")
	if certificates == "" {
		if home, err := os.UserHomeDir(); err == nil {
			certificates = filepath.Join(home, ".docker")
		}
	}
	return os.Getenv("DOCKER_HOST"), certificates
}
