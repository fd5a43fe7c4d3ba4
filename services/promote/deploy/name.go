package deploy

import (
	"fmt"
	"strconv"

	"towpath.dev/events"
	"towpath.dev/pkg/discovery"
)

// Labels on everything that a Deployer makes.
const (
	LabelInstall = "towpath.install"
	LabelApp     = "towpath.app"
	LabelEnv     = "towpath.env"
	LabelRun     = "towpath.run"
	LabelAttempt = "towpath.attempt"
	LabelSlot    = "towpath.slot"
	LabelDigest  = "towpath.digest"
	// LabelRole is what a container is for: replica, release or secrets.
	LabelRole = "towpath.role"
	// LabelPort is the host port that a replica is published on.
	LabelPort = "towpath.port"
)

const (
	roleReplica = "replica"
	roleRelease = "release"
	roleSecrets = "secrets"
)

// name is of a container: towpath-<install>-<app>.<env>-<slot>-<what>. The dot keeps app a-b in
// environment c apart from app a in environment b-c.
func (d *Deployer) name(p discovery.Place, slot int, what string) string {
	return fmt.Sprintf("towpath-%s-%s-%d-%s", d.cfg.Install, p, slot, what)
}

// network is shared by the apps of one environment.
func (d *Deployer) network(p discovery.Place) string {
	return fmt.Sprintf("towpath-%s-%s", d.cfg.Install, p.Env)
}

// envLabels are on an environment's network.
func (d *Deployer) envLabels(env events.Slug) map[string]string {
	return map[string]string{LabelInstall: d.cfg.Install, LabelEnv: string(env)}
}

// placeLabels are on everything of an app in an environment.
func (d *Deployer) placeLabels(p discovery.Place) map[string]string {
	labels := d.envLabels(p.Env)
	labels[LabelApp] = string(p.App)
	return labels
}

func (d *Deployer) labels(s Spec, role string) map[string]string {
	labels := d.placeLabels(s.Place)
	labels[LabelSlot] = strconv.Itoa(s.Slot)
	labels[LabelRun] = s.Run
	labels[LabelAttempt] = strconv.Itoa(s.Attempt)
	labels[LabelDigest] = s.Digest
	labels[LabelRole] = role
	return labels
}

// ours reports whether labels say that something belongs to a place.
func (d *Deployer) ours(labels map[string]string, p discovery.Place) bool {
	for key, value := range d.placeLabels(p) {
		if labels[key] != value {
			return false
		}
	}
	return true
}
