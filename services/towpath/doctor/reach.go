package doctor

import (
	"maps"
	"net"
	"net/url"
	"slices"
	"strings"

	"towpath.dev/pkg/policy"
	"towpath.dev/services/towpath"
	"towpath.dev/services/towpath/client"
)

// registryAddress is where the registry is, or will be.
func registryAddress(data string, platform *policy.Platform) string {
	if platform.Registry.Address != "" {
		return platform.Registry.Address
	}
	if place, err := towpath.ReadPlace(data); err == nil {
		return place.Registry
	}
	return towpath.DefaultRegistryListen
}

// reachCheck says whether every Engine can reach the registry: what is loopback here is another machine's own there.
func reachCheck(registry string, platform *policy.Platform) client.Check {
	const name = "registry from Engines"
	host, _, _ := strings.Cut(registry, "/")
	if !loopback(host) {
		return ok(name, "%s is not on this machine's loopback interface", registry)
	}
	var away []string
	for _, e := range slices.AppendSeq([]policy.Engine{platform.Engines.Build}, maps.Values(platform.Engines.Environments)) {
		if remote(e.Host) && !slices.Contains(away, e.Host) {
			away = append(away, e.Host)
		}
	}
	if len(away) == 0 {
		return ok(name, "it and every Engine are on this machine")
	}
	slices.Sort(away)
	return broken(name, "name a registry that every Engine reaches: registry.address in platform.yaml, or --registry-listen with this machine's address",
		"the registry is at %s, which the Engine at %s takes for itself: it can pull and push nothing", registry, strings.Join(away, " and that at "))
}

// remote reports whether an Engine is on another machine than this.
func remote(address string) bool {
	u, err := url.Parse(address)
	return err == nil && (u.Scheme == "ssh" || u.Scheme == "tcp") && !loopback(u.Host)
}

// loopback reports whether host, or host:port, is this machine's loopback interface.
func loopback(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	ip := net.ParseIP(strings.Trim(host, "[]"))
	return host == "localhost" || strings.HasSuffix(host, ".localhost") || ip != nil && ip.IsLoopback()
}
