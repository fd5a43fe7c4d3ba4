package system

import (
	"bytes"
	"compress/gzip"
	"os/exec"
	"strconv"
	"testing"
)

// A search that finds nothing says something only where it finds what is there.
func TestSecretsAreFoundWhereTheyAre(t *testing.T) {
	const secret = "found-where-it-is-5d21"
	for name, start := range map[string]func(*exec.Cmd){
		"environ": func(c *exec.Cmd) { c.Env = []string{"PASSWORD=" + secret} },
		"cmdline": func(c *exec.Cmd) { c.Args = append(c.Args, secret) },
	} {
		c := exec.Command("cat", "-", "/dev/null")
		start(c)
		if _, err := c.StdinPipe(); err != nil { // it stays until that is closed
			t.Fatal(err)
		}
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		found := false
		err := processes(func(place string, content []byte) {
			found = found || place == "/proc/"+strconv.Itoa(c.Process.Pid)+"/"+name && bytes.Contains(content, []byte(secret))
		})
		if err != nil || !found {
			t.Errorf("%s of a process: found %v (%v)", name, found, err)
		}
		_ = c.Process.Kill()
		_ = c.Wait()
	}
	var layer bytes.Buffer
	w := gzip.NewWriter(&layer)
	if _, err := w.Write([]byte(secret)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(layer.Bytes(), []byte(secret)) || !bytes.Contains(unpacked(layer.Bytes()), []byte(secret)) {
		t.Error("it is not found in a layer")
	}
}
