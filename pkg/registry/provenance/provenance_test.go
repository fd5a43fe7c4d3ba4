package provenance_test

import (
	"context"
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/random"

	"towpath.dev/pkg/identity"
	"towpath.dev/pkg/registry"
	"towpath.dev/pkg/registry/provenance"
	"towpath.dev/pkg/registry/registryserver"
)

// signers returns the identities' signers and what trusts them.
func signers(t *testing.T, ids ...string) (map[string]*identity.Signer, *identity.Trust) {
	t.Helper()
	dir := t.TempDir()
	if err := identity.Init(dir); err != nil {
		t.Fatal(err)
	}
	all := map[string]*identity.Signer{}
	for _, id := range ids {
		s, err := identity.LoadSigner(dir, id)
		if err != nil {
			t.Fatal(err)
		}
		all[id] = s
	}
	trust, err := identity.LoadTrust(filepath.Join(dir, identity.TrustFile))
	if err != nil {
		t.Fatal(err)
	}
	return all, trust
}

func predicate(commit string) provenance.Predicate {
	var p provenance.Predicate
	p.BuildDefinition.BuildType = provenance.BuildType
	p.BuildDefinition.ExternalParameters.Commit = commit
	p.RunDetails.Builder.ID = provenance.BuilderID
	p.RunDetails.Metadata.StartedOn = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	return p
}

func TestFindTakesOnlyWhatBuildSignedAboutTheImage(t *testing.T) {
	server, err := registryserver.Start(registryserver.Config{Dir: t.TempDir(), Listen: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close(context.WithoutCancel(t.Context())) })
	repository, err := registry.ParseRepository(server.Addr() + "/hello")
	if err != nil {
		t.Fatal(err)
	}
	c := registry.New(registry.Options{})
	push := func() registry.Artifact {
		image, err := random.Image(100, 1)
		if err != nil {
			t.Fatal(err)
		}
		digest, err := c.Push(t.Context(), repository, "latest", image)
		if err != nil {
			t.Fatal(err)
		}
		return repository.At(digest)
	}
	a, other := push(), push()
	ours, trust := signers(t, "build", "vet")
	theirs, _ := signers(t, "build")

	if found, refused, err := provenance.Find(t.Context(), c, trust, a); err != nil || len(found)+len(refused) > 0 {
		t.Fatalf("a new image has %v, %v, %v", found, refused, err)
	}
	good, err := provenance.Attach(t.Context(), c, ours["build"], a, predicate("one"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := provenance.Attach(t.Context(), c, ours["build"], a, predicate("two")); err != nil {
		t.Fatal(err)
	}
	for _, forger := range []*identity.Signer{ours["vet"], theirs["build"]} {
		if _, err := provenance.Attach(t.Context(), c, forger, a, predicate("forged")); err != nil {
			t.Fatal(err)
		}
	}
	// What build signed about another image, laid beside this one.
	elsewhere, err := provenance.Attach(t.Context(), c, ours["build"], other, predicate("elsewhere"))
	if err != nil {
		t.Fatal(err)
	}
	body, _, err := c.Read(t.Context(), elsewhere.Referrer, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	annotations := map[string]string{registry.PredicateTypeAnnotation: provenance.PredicateType}
	for _, text := range []string{string(body), "not JSON", "{}"} {
		document := registry.Document{ArtifactType: registry.StatementType, MediaType: registry.EnvelopeType, Body: []byte(text), Annotations: annotations}
		if _, err := c.Attach(t.Context(), a, document); err != nil {
			t.Fatal(err)
		}
	}
	found, refused, err := provenance.Find(t.Context(), c, trust, a)
	if err != nil {
		t.Fatal(err)
	}
	commits := map[string]bool{}
	for _, f := range found {
		commits[f.Predicate.BuildDefinition.ExternalParameters.Commit] = true
		if f.Predicate.BuildDefinition.ExternalParameters.Commit == "one" && (f.Referrer.Digest != good.Referrer.Digest || f.Signature != good.Signature || f.KeyID == "") {
			t.Errorf("found %+v, attached %+v", f, good)
		}
	}
	if len(found) != 2 || !commits["one"] || !commits["two"] || len(refused) != 5 {
		t.Errorf("found %v, refused %v, want one and two, and 5 refused", commits, refused)
	}
}

func TestVerifySeesEveryChange(t *testing.T) {
	ours, trust := signers(t, "build")
	repository, err := registry.ParseRepository("127.0.0.1:7050/hello")
	if err != nil {
		t.Fatal(err)
	}
	a := repository.At(registry.Digest("sha256:" + strings.Repeat("ab", 32)))
	statement, err := json.Marshal(provenance.Statement{
		Type: provenance.StatementType, PredicateType: provenance.PredicateType, Predicate: predicate("one"),
		Subject: []provenance.Subject{{Name: "x", Digest: map[string]string{"sha256": a.Digest.Hex()}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	envelope := func(payloadType, payload string) []byte {
		body, err := json.Marshal(ours["build"].SignPayload(payloadType, []byte(payload)))
		if err != nil {
			t.Fatal(err)
		}
		return body
	}
	good := envelope(registry.StatementType, string(statement))
	if s, err := provenance.Verify(trust, a, good); err != nil || s.Predicate.BuildDefinition.ExternalParameters.Commit != "one" {
		t.Fatalf("%+v, %v", s, err)
	}
	for name, body := range map[string][]byte{
		"another type of payload":   envelope("application/vnd.towpath.event.v1+json", string(statement)),
		"another predicate":         envelope(registry.StatementType, strings.Replace(string(statement), provenance.PredicateType, "https://spdx.dev/Document", 1)),
		"another kind of statement": envelope(registry.StatementType, strings.Replace(string(statement), "Statement/v1", "Statement/v0.1", 1)),
		"another image":             envelope(registry.StatementType, strings.Replace(string(statement), a.Digest.Hex(), strings.Repeat("cd", 32), 1)),
		"no statement":              envelope(registry.StatementType, "[]"),
		"no signature":              []byte(`{"payloadType":"application/vnd.in-toto+json","payload":"e30=","signatures":[]}`),
	} {
		if s, err := provenance.Verify(trust, a, body); err == nil {
			t.Errorf("%s: accepted %+v", name, s)
		}
	}
	for i := range good {
		changed := append([]byte(nil), good...)
		changed[i] ^= 1
		s, err := provenance.Verify(trust, a, changed)
		if err == nil && s.Predicate.BuildDefinition.ExternalParameters.Commit != "one" {
			t.Fatalf("byte %d changed: accepted %+v", i, s.Predicate)
		}
	}
}

func FuzzVerify(f *testing.F) {
	f.Add([]byte(`{"payloadType":"application/vnd.in-toto+json","payload":"e30=","signatures":[{"keyid":"x","sig":"eA=="}]}`))
	trust := &identity.Trust{}
	f.Fuzz(func(t *testing.T, body []byte) {
		if s, err := provenance.Verify(trust, registry.Artifact{}, body); err == nil {
			t.Errorf("accepted %+v", s)
		}
	})
}
