package git

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/textproto"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"

	"towpath.dev/events"
)

// Service is what a git client wants of a repository.
type Service string

// The services of git's smart HTTP protocol.
const (
	UploadPack  Service = "git-upload-pack"  // fetch
	ReceivePack Service = "git-receive-pack" // push
)

// Push is who pushes, and what its hooks find in their environment.
type Push struct {
	By  string   // name in git's log of the branch; one word
	ID  string   // address in that log; one word that no other push has
	Env []string // for the hooks: NAME=value
}

const (
	// idle is how long a client may neither send nor take anything.
	idle = 60 * time.Second
	// longest is how long one request may take.
	longest = 30 * time.Minute
	// drainMost is how much of a request is read and thrown away after git has ended, so that the client gets to
	// read why, in bytes.
	drainMost = 1 << 30
)

// gitProtocol is what a client may say in its Git-Protocol header.
var gitProtocol = regexp.MustCompile(`^[a-z0-9=:.-]{1,64}$`)

// Serve answers one request of the smart HTTP protocol through `git http-backend`: path is "/info/refs" or
// "/<service>". The caller has authenticated the client and checked what it may do. The error says that no good answer
// was given; the client has then been told, or is gone.
func (r Repository) Serve(w http.ResponseWriter, req *http.Request, app events.Slug, path string, push Push) error {
	ctx, cancel := context.WithTimeoutCause(req.Context(), longest, fmt.Errorf("it took more than %s", longest))
	defer cancel()
	control := http.NewResponseController(w)
	control.EnableFullDuplex() // git answers while it still reads; HTTP/2 needs no such call and says so
	cmd := r.store.process(ctx, append(r.env[:len(r.env):len(r.env)], cgi(req, app, path, r.store.hosted(), push)...), r.store.backend)
	// Where a request ends before its Content-Length, as when the gateway is killed, this program asks for the rest again
	// and again without a pause, for ever.
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	complaint := &limited{most: maxComplaint}
	cmd.Stderr = complaint
	in, err := cmd.StdinPipe()
	if err != nil {
		return fmt.Errorf("git http-backend: %w", err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return fmt.Errorf("git http-backend: %w", err)
	}
	if err := cmd.Start(); err != nil {
		http.Error(w, "git could not be started", http.StatusInternalServerError)
		return fmt.Errorf("git http-backend: %w", err)
	}
	body := watchedBody{from: req.Body, control: control}
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		io.Copy(in, body) // git's end, or the client's, shows below
		in.Close()
		io.Copy(io.Discard, io.LimitReader(body, drainMost))
	}()
	answerErr := answer(w, control, out)
	if answerErr != nil {
		cancel()
	}
	waitErr := cmd.Wait()
	if answerErr == nil {
		select {
		case <-sent:
		case <-ctx.Done():
		}
	}
	if err := errors.Join(answerErr, waitErr); err != nil {
		return &Error{Command: "http-backend", Text: complaint.text(), Cause: errors.Join(err, context.Cause(ctx))}
	}
	return nil
}

// cgi is the request as RFC 3875 hands it to a program.
func cgi(req *http.Request, app events.Slug, path, root string, push Push) []string {
	env := []string{
		"GATEWAY_INTERFACE=CGI/1.1", "SERVER_PROTOCOL=HTTP/1.1", "REQUEST_METHOD=" + req.Method,
		"GIT_PROJECT_ROOT=" + root, "GIT_HTTP_EXPORT_ALL=1", "PATH_INFO=/" + string(app) + ".git" + path,
		"CONTENT_TYPE=" + req.Header.Get("Content-Type"), "REMOTE_ADDR=" + req.RemoteAddr,
	}
	if path == "/info/refs" {
		env = append(env, "QUERY_STRING=service="+req.URL.Query().Get("service"))
	}
	if req.ContentLength >= 0 {
		env = append(env, "CONTENT_LENGTH="+strconv.FormatInt(req.ContentLength, 10))
	}
	if encoding := req.Header.Get("Content-Encoding"); encoding == "gzip" || encoding == "x-gzip" {
		env = append(env, "HTTP_CONTENT_ENCODING="+encoding)
	}
	if version := req.Header.Get("Git-Protocol"); gitProtocol.MatchString(version) {
		env = append(env, "GIT_PROTOCOL="+version, "HTTP_GIT_PROTOCOL="+version)
	}
	if push.By != "" {
		env = append(env, "REMOTE_USER="+push.By, "GIT_COMMITTER_NAME="+push.By, "GIT_COMMITTER_EMAIL="+push.ID)
	}
	return append(env, push.Env...)
}

// answer copies a CGI answer to the client and flushes every piece, so that a push shows what goes on.
func answer(w http.ResponseWriter, control *http.ResponseController, out io.Reader) error {
	reader := bufio.NewReaderSize(out, 64<<10)
	head, err := textproto.NewReader(reader).ReadMIMEHeader()
	if err != nil {
		http.Error(w, "git gave no answer", http.StatusInternalServerError)
		return fmt.Errorf("git gave no answer: %w", err)
	}
	status := http.StatusOK
	if text := head.Get("Status"); text != "" {
		code, _, _ := strings.Cut(text, " ")
		if status, err = strconv.Atoi(code); err != nil || status < 200 || status > 599 {
			http.Error(w, "git gave an answer that cannot be read", http.StatusInternalServerError)
			return fmt.Errorf("git answered with status %q", text)
		}
	}
	for name, values := range head {
		if name != "Status" && name != "Content-Length" {
			w.Header()[name] = values
		}
	}
	w.WriteHeader(status)
	buffer := make([]byte, 64<<10)
	for {
		n, err := reader.Read(buffer)
		if n > 0 {
			control.SetWriteDeadline(time.Now().Add(idle))
			if _, err := w.Write(buffer[:n]); err != nil {
				return fmt.Errorf("the client took no more: %w", err)
			}
			if err := control.Flush(); err != nil {
				return fmt.Errorf("the client took no more: %w", err)
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("reading git's answer: %w", err)
		}
	}
}

// watchedBody gives up on a client that sends nothing for a while.
type watchedBody struct {
	from    io.Reader
	control *http.ResponseController
}

func (b watchedBody) Read(p []byte) (int, error) {
	b.control.SetReadDeadline(time.Now().Add(idle))
	n, err := b.from.Read(p)
	if err != nil {
		b.control.SetReadDeadline(time.Time{}) // one that passes later would end the request
	}
	return n, err
}
