package contents

import (
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/rs/zerolog"
	"github.com/zricethezav/gitleaks/v8/config"
	"github.com/zricethezav/gitleaks/v8/detect"
	"github.com/zricethezav/gitleaks/v8/logging"
)

// secretsVersion names what knows secrets. A test compares it with the module that is linked.
const secretsVersion = "gitleaks-8.30.1"

// vague are the rules that match what merely looks like a secret. They are not for the files of a distribution's packages,
// in which they see secrets everywhere.
var vague = []string{
	"generic-api-key", "jwt", "jwt-base64", "curl-auth-header", "curl-auth-user", "kubernetes-secret-yaml", "hashicorp-tf-password", "nuget-config-password",
}

// packaged are the folders where packages put what is theirs.
var packaged = []string{"/usr/share/", "/usr/lib/", "/usr/libexec/", "/usr/include/", "/lib/", "/usr/bin/", "/usr/sbin/", "/bin/", "/sbin/"}

// secrets knows secrets by gitleaks' rules, without its allow-lists and its comments that allow: those are for a
// repository's own people, and an image's author may be anybody.
type secrets struct{ sure, all *detect.Detector }

// newSecrets reads gitleaks' rules, once: they are the same for all, and gitleaks keeps them for the whole process while it
// reads them.
var newSecrets = sync.OnceValues(readRules)

func readRules() (*secrets, error) {
	logging.Logger = zerolog.Nop() // it would write what matched
	d, err := detect.NewDetectorDefaultConfig()
	if err != nil {
		return nil, fmt.Errorf("reading gitleaks' rules: %w", err)
	}
	all, sure := d.Config, d.Config
	all.Allowlists, sure.Allowlists = nil, nil
	all.Rules, sure.Rules, sure.Keywords = map[string]config.Rule{}, map[string]config.Rule{}, map[string]struct{}{}
	for id, rule := range d.Config.Rules {
		rule.Allowlists = nil
		all.Rules[id] = rule
		if slices.Contains(vague, id) {
			continue
		}
		sure.Rules[id] = rule
		for _, word := range rule.Keywords {
			sure.Keywords[strings.ToLower(word)] = struct{}{}
		}
	}
	s := &secrets{sure: detect.NewDetector(sure), all: detect.NewDetector(all)}
	s.sure.IgnoreGitleaksAllow, s.all.IgnoreGitleaksAllow = true, true
	return s, nil
}

// in finds secrets in a text, which may be that of a file; a Match has no Path.
func (s *secrets) in(path string, text []byte) []Match {
	detector := s.all
	if slices.ContainsFunc(packaged, func(folder string) bool { return strings.HasPrefix(path, folder) }) {
		detector = s.sure
	}
	var found []Match
	for _, f := range detector.DetectBytes(text) {
		m := Match{Kind: Secret, Name: f.RuleID, Line: f.StartLine + 1}
		if slices.Contains(vague, f.RuleID) {
			m.Kind = Suspected
		}
		found = append(found, m)
	}
	return found
}
