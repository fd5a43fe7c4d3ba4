package seal

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"towpath.dev/pkg/identity"
	"towpath.dev/pkg/ledger"
)

func leaf(n int) Hash {
	return LeafOf(ledger.Stored{Seq: uint64(n), Time: time.Unix(int64(n), 5), Subject: fmt.Sprintf("event.1.build.hello.%d._.build.started._.1", n), Body: []byte("{}"), Signature: "k s"})
}

// TestALeafBindsEverything changes one thing after the other.
func TestALeafBindsEverything(t *testing.T) {
	m := ledger.Stored{Seq: 7, Time: time.Unix(1, 2), Subject: "event.1.build.hello.1._.build.started._.1", Body: []byte("{}"), Signature: "key sig"}
	seen := map[Hash]string{LeafOf(m): "as it is"}
	for name, change := range map[string]func(*ledger.Stored){
		"sequence":             func(m *ledger.Stored) { m.Seq++ },
		"time":                 func(m *ledger.Stored) { m.Time = m.Time.Add(1) },
		"subject":              func(m *ledger.Stored) { m.Subject += "1" },
		"body":                 func(m *ledger.Stored) { m.Body = []byte("{} ") },
		"signature":            func(m *ledger.Stored) { m.Signature += "=" },
		"signature and body":   func(m *ledger.Stored) { m.Signature, m.Body = "key si", []byte("g{}") },
		"subject without ours": func(m *ledger.Stored) { m.Subject = "other" },
	} {
		changed := m
		change(&changed)
		if other, taken := seen[LeafOf(changed)]; taken {
			t.Errorf("%s: the leaf is that of %s", name, other)
		}
		seen[LeafOf(changed)] = name
	}
	for subject, want := range map[string]string{
		m.Subject: "hello", "event.1.ledger._._._.checkpoint.sealed._.3": "_.checkpoint.sealed", "other": "_", "event.1.a\n.b.c.d.e.f.g.h": "_",
	} {
		if got := Scope(subject); got != want {
			t.Errorf("scope of %q is %q", subject, got)
		}
	}
}

// TestTheTreeIsTheSameOnDisk compares with one in memory, at each size, cut back, and opened again.
func TestTheTreeIsTheSameOnDisk(t *testing.T) {
	path := filepath.Join(t.TempDir(), "seal", HashesFile)
	memory, err := OpenTree("")
	if err != nil {
		t.Fatal(err)
	}
	roots := []Hash{}
	for n := range 70 {
		disk, err := OpenTree(path)
		if err != nil {
			t.Fatal(err)
		}
		if disk.Size() != uint64(n) {
			t.Fatalf("opened with %d leaves, not %d", disk.Size(), n)
		}
		for _, tree := range []*Tree{memory, disk} {
			if err := tree.Append(leaf(n + 1)); err != nil {
				t.Fatal(err)
			}
		}
		a, err := memory.Root(uint64(n + 1))
		b, second := disk.Root(uint64(n + 1))
		if err != nil || second != nil || a != b {
			t.Fatalf("%d leaves: %v and %v (%v, %v)", n+1, a, b, err, second)
		}
		if got, err := disk.Leaf(uint64(n + 1)); err != nil || got != leaf(n+1) {
			t.Fatalf("leaf %d: %v, %v", n+1, got, err)
		}
		roots = append(roots, a)
		if err := disk.Close(); err != nil {
			t.Fatal(err)
		}
	}
	disk, err := OpenTree(path)
	if err != nil {
		t.Fatal(err)
	}
	defer disk.Close()
	for _, size := range []uint64{69, 64, 33, 8, 1} {
		if err := disk.Truncate(size); err != nil {
			t.Fatal(err)
		}
		if root, err := disk.Root(size); err != nil || root != roots[size-1] {
			t.Errorf("cut to %d: %v, %v", size, root, err)
		}
		if _, err := disk.ReadHashes([]int64{tlog.StoredHashIndex(0, int64(size))}); !errors.Is(err, errBeyond) {
			t.Errorf("a leaf beyond %d: %v", size, err)
		}
	}
}

func TestACheckpointIsOpenedInOneForm(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "keys")
	if err := identity.Init(dir); err != nil {
		t.Fatal(err)
	}
	trust, err := identity.LoadTrust(filepath.Join(dir, identity.TrustFile))
	if err != nil {
		t.Fatal(err)
	}
	signer, err := identity.LoadSigner(dir, "ledger")
	if err != nil {
		t.Fatal(err)
	}
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	witness := Witness{"w.example", public}
	c := Checkpoint{Origin: Origin(strings.Repeat("a", 64), 1), Size: 12, Root: leaf(3)}
	at := time.Unix(1_790_000_000, 0).UTC()
	text := Sign(signer, c) + Cosign(witness.Name, private, c, at)
	signed, err := Open(text, trust, witness)
	if err != nil || signed.Checkpoint != c || len(signed.Keys) != 1 || len(signed.Cosignatures) != 1 || !signed.Cosignatures[0].At.Equal(at) {
		t.Fatalf("%+v, %v", signed, err)
	}
	if unwitnessed, err := Open(text, trust); err != nil || len(unwitnessed.Unknown) != 1 || len(unwitnessed.Cosignatures) != 0 {
		t.Errorf("without the witness's key: %+v, %v", unwitnessed, err)
	}
	// The ledger's line is one that x/mod's own verifier of notes takes.
	vkey, err := note.NewEd25519VerifierKey(c.Origin, signed.Keys[0].Key)
	if err != nil {
		t.Fatal(err)
	}
	verifier, err := note.NewVerifier(vkey)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := note.Open([]byte(text), note.VerifierList(verifier)); err != nil {
		t.Errorf("by another reader of notes: %v", err)
	}
	lines := strings.SplitAfter(text, "\n")
	for name, changed := range map[string]string{
		"nothing":             "",
		"no signature":        c.Text(),
		"the witness alone":   c.Text() + "\n" + lines[5],
		"a line twice":        text + lines[4],
		"another size":        strings.Replace(text, "\n12\n", "\n13\n", 1),
		"a size with a zero":  strings.Replace(text, "\n12\n", "\n012\n", 1),
		"an extension":        strings.Replace(text, "\n\n", "\nmore\n\n", 1),
		"another's ledger":    strings.Replace(text, "aaa", "bbb", 2),
		"by another service":  func() string { other, _ := identity.LoadSigner(dir, "build"); return Sign(other, c) }(),
		"a changed signature": strings.Replace(text, lines[4][len(lines[4])-10:], "AAAAAAA==\n", 1),
	} {
		if got, err := Open(changed, trust, witness); !errors.Is(err, ErrCheckpoint) {
			t.Errorf("%s: %+v, %v", name, got.Checkpoint, err)
		}
	}
	if again, err := ParseWitness(witness.String()); err != nil || again.Name != witness.Name || !again.Public.Equal(public) {
		t.Errorf("%s: %+v, %v", witness, again, err)
	}
	for _, bad := range []string{"", "w.example", "w.example+00000000+AAAA", strings.Replace(witness.String(), "w.", "x.", 1)} {
		if w, err := ParseWitness(bad); err == nil {
			t.Errorf("%q is taken for %+v", bad, w)
		}
	}
}
