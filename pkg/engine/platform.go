package engine

import "towpath.dev/pkg/policy"

// FleetOf returns the engines that a platform file names.
func FleetOf(e policy.Engines) *Fleet {
	environments := map[string]Host{}
	for name, one := range e.Environments {
		environments[string(name)] = hostOf(one)
	}
	return NewFleet(hostOf(e.Build), environments[string(policy.DefaultEnvironment)], environments)
}

func hostOf(e policy.Engine) Host {
	return Host{URL: e.Host, TLS: TLS(e.TLS), Publish: e.Publish, Dedicated: e.Dedicated}
}
