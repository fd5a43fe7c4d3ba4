package layers

import (
	"archive/tar"
	"bytes"
	"fmt"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"towpath.dev/services/vet/imagetest"
)

// What counts is the image as it runs: files that a later layer takes away or replaces are not there.
func TestPrivileged(t *testing.T) {
	suid := func(path string) imagetest.File {
		return imagetest.File{Path: path, Body: []byte(path), Mode: 0o4755}
	}
	gone := func(path string) imagetest.File { return imagetest.File{Path: path} }
	for name, c := range map[string]struct {
		layers [][]imagetest.File
		want   string
	}{
		"one":                          {[][]imagetest.File{{suid("usr/bin/x"), {Path: "usr/bin/y", Mode: 0o755}}}, "/usr/bin/x"},
		"as its group":                 {[][]imagetest.File{{{Path: "x", Mode: 0o2755}}}, "/x(group)"},
		"that nobody can run":          {[][]imagetest.File{{{Path: "x", Mode: 0o4644}}}, ""},
		"deleted":                      {[][]imagetest.File{{suid("usr/bin/x")}, {gone("usr/bin/.wh.x")}}, ""},
		"its folder deleted":           {[][]imagetest.File{{suid("usr/bin/x")}, {gone(".wh.usr")}}, ""},
		"its folder emptied":           {[][]imagetest.File{{suid("usr/bin/x")}, {suid("usr/bin/y"), gone("usr/bin/.wh..wh..opq")}}, "/usr/bin/y"},
		"replaced":                     {[][]imagetest.File{{suid("x")}, {{Path: "./x", Mode: 0o755}}}, ""},
		"deleted and made again":       {[][]imagetest.File{{suid("x")}, {gone(".wh.x")}, {suid("x")}}, "/x"},
		"a hard link to it":            {[][]imagetest.File{{suid("x"), {Path: "y", Link: "x"}}}, "/x /y"},
		"a shell by its name":          {[][]imagetest.File{{suid("bin/bash")}}, "/bin/bash(shell)"},
		"a shell by another name":      {[][]imagetest.File{{{Path: "bin/sh", Body: []byte("shell"), Mode: 0o755}}, {{Path: "opt/helper", Body: []byte("shell"), Mode: 0o4755}}}, "/opt/helper(shell)"},
		"a shell copied before it":     {[][]imagetest.File{{{Path: "opt/helper", Body: []byte("shell"), Mode: 0o4755}, {Path: "bin/dash", Body: []byte("shell"), Mode: 0o755}}}, "/opt/helper(shell)"},
		"an interpreter and a version": {[][]imagetest.File{{suid("usr/bin/python3.11"), suid("usr/bin/perl5.36.0")}}, "/usr/bin/perl5.36.0(shell) /usr/bin/python3.11(shell)"},
		"an empty file is no shell":    {[][]imagetest.File{{{Path: "bin/sh", Mode: 0o755}, {Path: "x", Mode: 0o4755}}}, "/x"},
	} {
		t.Run(name, func(t *testing.T) {
			var all []v1.Layer
			for _, files := range c.layers {
				all = append(all, imagetest.Layer(t, imagetest.Tar(t, files...)))
			}
			read := unpack(t, imagetest.Image(t, all...), roomy)
			var got []string
			for _, p := range read.Privileged {
				text := p.Path
				if !p.User {
					text += "(group)"
				}
				if p.Shell {
					text += "(shell)"
				}
				got = append(got, text)
				if p.Layer == "" {
					t.Errorf("%s has no layer", p.Path)
				}
			}
			if strings.Join(got, " ") != c.want {
				t.Errorf("got %v, want %s", got, c.want)
			}
		})
	}
}

func TestPrivilegedAreBounded(t *testing.T) {
	var files []imagetest.File
	for i := range 1100 {
		files = append(files, imagetest.File{Path: fmt.Sprint("x", i, "y"), Mode: 0o4755})
	}
	read := unpack(t, imagetest.Image(t, imagetest.Layer(t, imagetest.Tar(t, files...))), Limits{Bytes: 64 << 20, Files: 2000})
	if len(read.Privileged) != maxPrivileged {
		t.Errorf("%d of them", len(read.Privileged))
	}
}

func TestUsers(t *testing.T) {
	passwd := imagetest.File{Path: "etc/passwd", Body: []byte("root:x:0:0::/:/bin/sh\napp:x:1000:1000::/:/bin/sh\nnonsense\napp:x:0:0::/:\n")}
	read := unpack(t, imagetest.Image(t, imagetest.Layer(t, imagetest.Tar(t, passwd))), roomy)
	if len(read.Users) != 2 || read.Users["app"] != "1000" {
		t.Errorf("%v", read.Users)
	}
}

// FuzzModes: no archive makes the walker panic or forget its bounds.
func FuzzModes(f *testing.F) {
	f.Add("usr/bin/x", "usr/.wh.bin", "x", byte(tar.TypeReg), byte(tar.TypeLink))
	f.Add("./", "../x", "/", byte(tar.TypeDir), byte(tar.TypeReg))
	f.Fuzz(func(t *testing.T, a, b, link string, kindA, kindB byte) {
		m := newModes()
		for i, one := range []struct {
			name string
			kind byte
		}{{a, kindA}, {b, kindB}, {a, kindB}} {
			header := &tar.Header{Name: one.name, Linkname: link, Typeflag: one.kind, Mode: 0o4755, Size: 1}
			if err := m.entry(fmt.Sprint("layer", i), absolute(one.name), header, bytes.NewReader([]byte("x"))); err != nil {
				t.Fatal(err)
			}
		}
		for _, p := range m.list() {
			if !strings.HasPrefix(p.Path, "/") {
				t.Fatalf("%+v", p)
			}
		}
	})
}
