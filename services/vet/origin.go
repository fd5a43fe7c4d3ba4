package vet

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"towpath.dev/events"
	"towpath.dev/pkg/identity"
	"towpath.dev/pkg/ledger/fold"
	"towpath.dev/pkg/policy"
	"towpath.dev/pkg/registry"
	"towpath.dev/pkg/registry/provenance"
)

// origin is what an image's provenance has to say: the run's app and commit.
type origin struct {
	app       events.Slug
	commit    string // empty: not known, so any will do
	elsewhere bool   // another CI built the image
	health    bool   // the run's definition says how to tell that the service is healthy
	// provenance is the digest of the statement that the ledger names; empty: none.
	provenance string
}

// borneOut refuses what a retired key has stated, unless the ledger names the statement: whoever got hold of
// the key could have stated it since.
func borneOut(
	genuine []provenance.Signed, refused []provenance.Refused, named string, keys []identity.PublicKey, now time.Time,
) ([]provenance.Signed, []provenance.Refused) {
	var good []provenance.Signed
	for _, s := range genuine {
		i := slices.IndexFunc(keys, func(k identity.PublicKey) bool { return k.ID == s.KeyID })
		err := errors.New("its key is not build's")
		if i >= 0 {
			err = keys[i].MaySign(now)
		}
		if err == nil || string(s.Referrer.Digest) == named {
			good = append(good, s)
			continue
		}
		refused = append(refused, provenance.Refused{Referrer: s.Referrer, Why: err})
	}
	return good, refused
}

// madeBy returns the statement about the run's commit; nil: there is none.
func madeBy(o origin, genuine []provenance.Signed) *provenance.Predicate {
	for _, s := range genuine {
		from := s.Predicate.BuildDefinition
		if (o.commit == "" || from.ExternalParameters.Commit == o.commit) && from.InternalParameters.App == string(o.app) {
			return &s.Predicate
		}
	}
	return nil
}

// originFindings judges what was stated about how the image was made. One genuine statement about the
// run's commit is enough, whatever else claims to be one.
func originFindings(o origin, genuine []provenance.Signed, refused []provenance.Refused) []events.Finding {
	if madeBy(o, genuine) != nil {
		return nil
	}
	var stated []string
	for _, s := range genuine {
		from := s.Predicate.BuildDefinition
		stated = append(stated, fmt.Sprintf("commit %s of app %s", short(from.ExternalParameters.Commit), from.InternalParameters.App))
	}
	switch {
	case len(stated) > 0:
		return []events.Finding{newFinding(policy.ProvenanceMismatch, "find out why another commit's image came into this run, then push again",
			"the image was built from %s, the run is about commit %s of app %s", list(stated), short(o.commit), o.app)}
	case len(refused) > 0 && !o.elsewhere:
		return []events.Finding{newFinding(policy.ProvenanceForged, "find out who else writes to the registry, then replay the build",
			"the statement about how the image was made is not genuine: %v", refused[0].Why)}
	}
	why := "nothing says how the image was made"
	switch {
	case len(refused) > 0:
		why = fmt.Sprintf("nothing that this platform trusts says how the image was made (there is a statement; %v)", refused[0].Why)
	case o.elsewhere:
		why += "; it was built elsewhere"
	}
	return []events.Finding{newFinding(policy.ProvenanceMissing, "let Towpath build the image from its source (git push)", "%s", why)}
}

// short is the beginning of a commit, for people.
func short(commit string) string {
	if commit == "" {
		return "(unknown)"
	}
	return tidy(strings.ToLower(commit[:min(12, len(commit))]), 12)
}

// places are the environments that a verdict is given for, and what runs there.
func places(a *fold.App, r *fold.Run) []place {
	var all []place
	for _, e := range r.Envs {
		p := place{name: e.Name}
		if live := a.Env(e.Name).Live(); live != nil && live.Kind != events.KindRemove {
			if other := a.Run(live.Run); other != nil && other.Artifact != nil {
				repository, err := registry.ParseRepository(other.Artifact.Repository)
				digest, err2 := registry.ParseDigest(live.Digest)
				if err == nil && err2 == nil {
					p.running, p.origin = repository.At(digest), originOf(other)
				}
			}
		}
		all = append(all, p)
	}
	return all
}
