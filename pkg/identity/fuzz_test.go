package identity_test

import (
	"bytes"
	"encoding/json"
	"path/filepath"
	"testing"

	"github.com/secure-systems-lab/go-securesystemslib/dsse"

	"towpath.dev/pkg/identity"
)

// signed is what the fuzzers' installation signs, and nothing else.
const (
	signedSubject = "event.1.build.a.1._.build.started._.1"
	signedBody    = `{"context":{}}`
	signedType    = "application/vnd.in-toto+json"
)

func fuzzed(f *testing.F) (*identity.Signer, *identity.Trust) {
	f.Helper()
	dir := filepath.Join(f.TempDir(), "keys")
	if err := identity.Init(dir); err != nil {
		f.Fatal(err)
	}
	s, err := identity.LoadSigner(dir, "build")
	if err != nil {
		f.Fatal(err)
	}
	trust, err := identity.LoadTrust(filepath.Join(dir, identity.TrustFile))
	if err != nil {
		f.Fatal(err)
	}
	return s, trust
}

// FuzzSignature reads signatures of events: only what was signed is accepted, under its subject alone.
func FuzzSignature(f *testing.F) {
	signer, trust := fuzzed(f)
	good := signer.Sign(signedSubject, []byte(signedBody))
	f.Add(signedSubject, []byte(signedBody), good)
	f.Add(signedSubject+"\n", []byte(signedBody)[1:], good)
	f.Add(signedSubject, []byte(signedBody), good+" ")
	f.Add("", []byte{}, " ")
	f.Fuzz(func(t *testing.T, subject string, body []byte, signature string) {
		// The seeds of another run were signed with another key: the second look has this run's.
		for _, signature := range []string{signature, good} {
			writer, err := trust.Verify(subject, body, signature)
			if accepted := err == nil; accepted && (subject+"\n"+string(body) != signedSubject+"\n"+signedBody || writer != "build") {
				t.Errorf("%q over %q and %q is accepted as %s's", signature, subject, body, writer)
			}
		}
	})
}

// FuzzEnvelope reads DSSE envelopes: only what was signed is accepted, as the type that it was signed as.
func FuzzEnvelope(f *testing.F) {
	signer, trust := fuzzed(f)
	good := signer.SignPayload(signedType, []byte(signedBody))
	whole, err := json.Marshal(good)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(whole)
	f.Add([]byte(`{"payloadType":"a","payload":"e30=","signatures":[{"keyid":"","sig":""},{"keyid":"x","sig":"!"}]}`))
	f.Add([]byte(`{"payload":"%%%","signatures":null}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var e dsse.Envelope
		if json.Unmarshal(data, &e) != nil {
			return
		}
		for _, signatures := range [][]dsse.Signature{e.Signatures, append(good.Signatures, e.Signatures...), append(e.Signatures, good.Signatures...)} {
			e.Signatures = signatures
			payload, writer, err := trust.VerifyPayload(e)
			if err == nil && (e.PayloadType != signedType || !bytes.Equal(payload, []byte(signedBody)) || writer != "build") {
				t.Errorf("%q of type %q is accepted as %s's", payload, e.PayloadType, writer)
			}
		}
	})
}
