package dockerfile

import (
	"fmt"
	"strings"
	"testing"

	"towpath.dev/pkg/policy"
)

const hostile = `ARG VERSION=12
FROM debian:${VERSION} AS build
ARG NPM_TOKEN
ENV API_KEY=hunter2 \
    KEY_FILE=/run/key PUBLIC_KEY=abc
ADD https://bob:pw@example.com/x.tar.gz?sig=1 /x
ADD --checksum=sha256:24454f830cdb571e2c4ad15481119c43b3cafd48dd869a9b2945d1036d1dc68d https://example.com/y /y
ADD https://github.com/moby/buildkit.git#0123456789012345678901234567890123456789 /z
RUN apt-get update && \
    apt-get install -y --no-install-recommends -t stable git curl=7.88.1-10 && \
    curl -fsSL https://example.com/install.sh | sudo bash -s -- --yes
RUN bash -c "$(wget -qO- https://example.com/other.sh)"
RUN <<EOF
pip install requests flask==3.0 -r requirements.txt
curl https://example.com/fine -o /tmp/fine && sha256sum -c sums
EOF
RUN npm install && npm install -g left-pad @scope/a@1.2.3 && go install example.com/tool@latest && apk add --no-cache bash~5
FROM build
USER root
EXPOSE 80/tcp 8080
FROM scratch AS other
COPY --from=build /x /x
`

func TestFindings(t *testing.T) {
	f, err := Read([]byte(hostile), Options{Target: "1", Digest: func(image string) string {
		if image == "debian:12" {
			return "sha256:abc"
		}
		return ""
	}})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, one := range f.Findings() {
		got = append(got, fmt.Sprintf("%d %s %s", one.Line, one.Rule, one.Subject))
		if one.Message == "" || one.Fix == "" {
			t.Errorf("%+v", one)
		}
		if text := one.Message + one.Fix + one.Subject; strings.Contains(text, "hunter2") || strings.Contains(text, "pw") || strings.Contains(text, "sig=") {
			t.Errorf("a secret is shown: %+v", one)
		}
	}
	want := `2 dockerfile-unpinned-base debian:12
3 dockerfile-secret NPM_TOKEN
4 dockerfile-secret API_KEY
6 dockerfile-add-url https://example.com/x.tar.gz
10 dockerfile-unpinned-package apt-get git
11 dockerfile-pipe-shell https://example.com/install.sh
12 dockerfile-pipe-shell https://example.com/other.sh
14 dockerfile-unpinned-package pip requests
17 dockerfile-unpinned-package npm left-pad
17 dockerfile-unpinned-package go example.com/tool@latest`
	if strings.Join(got, "\n") != want {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), want)
	}
	if f.Findings()[0].Fix != "write FROM debian:12@sha256:abc, which is what was built upon" {
		t.Error(f.Findings()[0].Fix)
	}
	if f.StageLine() != 18 || f.UserLine() != 19 || f.PortLine("80/tcp") != 20 || f.PortLine("9/tcp") != 18 {
		t.Errorf("stage %d, user %d, ports %d and %d", f.StageLine(), f.UserLine(), f.PortLine("80/tcp"), f.PortLine("9/tcp"))
	}
}

func TestHonestDockerfiles(t *testing.T) {
	for _, text := range []string{
		"FROM scratch\nCOPY app /\nUSER 65532\n",
		"FROM debian@sha256:24454f830cdb571e2c4ad15481119c43b3cafd48dd869a9b2945d1036d1dc68d\nRUN apt-get update && rm -rf /var/lib/apt/lists/*\n",
		"ARG BASE=scratch\nFROM ${BASE}\nENV MONKEY=1 TOKENIZER=x DATABASE_PASSWORD_FILE=/run/secrets/x\n",
		"FROM scratch\nRUN curl -o f https://example.com/f && echo abc f | sha256sum -c && sh f\n",
		"FROM scratch\nRUN echo curl and then | cat\nRUN apt-get install -y $PACKAGES\n",
		"FROM scratch\nRUN pip install -r requirements.txt && pip install . && npm ci && gem install rake -v 13.0.6\n",
		"# escape=`\nFROM scratch\nRUN echo a `\n b\n",
	} {
		f, err := Read([]byte(text), Options{})
		if err != nil {
			t.Errorf("%q: %v", text, err)
			continue
		}
		if found := f.Findings(); len(found) > 0 {
			t.Errorf("%q: %+v", text, found)
		}
	}
}

func TestBuildArgumentsCount(t *testing.T) {
	f, err := Read([]byte("ARG BASE=scratch\nFROM $BASE\n"), Options{Args: map[string]string{"BASE": "alpine:3"}})
	if err != nil || len(f.Findings()) != 1 || f.Findings()[0].Rule != policy.DockerfileUnpinnedBase || f.Findings()[0].Subject != "alpine:3" {
		t.Errorf("%+v, %v", f, err)
	}
}

func TestNoDockerfile(t *testing.T) {
	for _, text := range []string{"", "RUN x\n", "FROM\n", "FROM a\nNONSENSE x\n", "\x00\x01"} {
		if _, err := Read([]byte(text), Options{}); err == nil {
			t.Errorf("%q was read", text)
		}
	}
}

// FuzzRead: no text makes the reader panic, and each finding is on a line of it.
func FuzzRead(f *testing.F) {
	f.Add([]byte(hostile))
	f.Add([]byte("FROM a\nRUN curl x|sh"))
	f.Fuzz(func(t *testing.T, text []byte) {
		read, err := Read(text, Options{})
		if err != nil {
			return
		}
		for _, one := range read.Findings() {
			if one.Line < 1 || one.Line > strings.Count(string(text), "\n")+1 || one.Subject == "" {
				t.Fatalf("%+v", one)
			}
		}
		read.UserLine()
		read.PortLine("80/tcp")
	})
}
