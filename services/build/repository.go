package build

import (
	"fmt"
	"net/url"
	"path"
	"regexp"
	"strings"

	"towpath.dev/events"
)

// repositoryURL is where a git repository is fetched from: one of the four transports that are allowed,
// without credentials, and nothing that git could take for an option or a helper program.
type repositoryURL struct {
	scheme string // file, http, https or ssh
	text   string // the canonical URL, which git gets
	url    *url.URL
}

var (
	scpLike  = regexp.MustCompile(`^([A-Za-z0-9][A-Za-z0-9._-]*)@([A-Za-z0-9][A-Za-z0-9.-]*):([^:/\\][^:\\]*)$`)
	hostName = regexp.MustCompile(`^(\[[0-9a-fA-F:]+\]|[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?)(:[0-9]{1,5})?$`)
	userName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]*$`)
)

// parseRepository reads file:///path, http(s)://host/path, ssh://[user@]host/path or user@host:path. What
// it refuses is a Fault that the author mends.
func parseRepository(text string) (repositoryURL, error) {
	if m := scpLike.FindStringSubmatch(text); m != nil {
		text = "ssh://" + m[1] + "@" + m[2] + "/" + m[3]
	}
	refuse := func(why string) (repositoryURL, error) {
		return repositoryURL{}, authorActs(events.Trouble{
			What: "reading the repository's address", On: withoutCredentials(text), Why: why,
			Do: "give the repository as file:///path, http(s)://host/path or ssh://user@host/path",
		})
	}
	u, err := url.Parse(text)
	if err != nil || strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return refuse("it is not a URL")
	}
	if u.RawQuery != "" || u.Fragment != "" || u.Opaque != "" {
		return refuse("it has more than a host and a path")
	}
	switch u.Scheme {
	case "file":
		if u.Host != "" || !path.IsAbs(u.Path) {
			return refuse("a file URL must be file:///absolute/path")
		}
		u.Path = path.Clean(u.Path)
	case "http", "https", "ssh":
		if !hostName.MatchString(u.Host) || len(u.Path) < 2 {
			return refuse("it needs a host and a path")
		}
		if strings.HasPrefix(u.Path, "/-") {
			return refuse("its path begins with a hyphen")
		}
	default:
		return refuse("its transport is not one of file, http, https and ssh")
	}
	if _, secret := u.User.Password(); secret || u.User != nil && u.Scheme != "ssh" {
		return refuse("it holds credentials, which would end up in the ledger; the platform keeps them in the build service's git credentials file")
	}
	if u.User != nil && !userName.MatchString(u.User.Username()) {
		return refuse("its user name has characters that are not allowed")
	}
	return repositoryURL{scheme: u.Scheme, text: u.String(), url: u}, nil
}

// resolve reads the address of a submodule, which may be relative to that of the repository that holds it.
func (r repositoryURL) resolve(text string) (repositoryURL, error) {
	if !strings.HasPrefix(text, "./") && !strings.HasPrefix(text, "../") {
		return parseRepository(text)
	}
	joined := *r.url
	joined.Path = path.Join(r.url.Path, text)
	return parseRepository(joined.String())
}

// below reports whether r is a file URL in one of the folders.
func (r repositoryURL) below(folders []string) bool {
	for _, folder := range folders {
		if r.scheme == "file" && strings.HasPrefix(r.url.Path, path.Clean(folder)+"/") {
			return true
		}
	}
	return false
}

// withoutCredentials returns a text that may be shown, whatever was in it before the host.
func withoutCredentials(text string) string {
	scheme, rest, ok := strings.Cut(text, "://")
	if !ok {
		return fmt.Sprintf("%.200q", text)
	}
	host, _, _ := strings.Cut(rest, "/")
	if at := strings.LastIndexByte(host, '@'); at >= 0 {
		rest = "***@" + rest[at+1:]
	}
	return fmt.Sprintf("%.200q", scheme+"://"+rest)
}
