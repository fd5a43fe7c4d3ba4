package build

import (
	"context"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
	"syscall"

	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"github.com/moby/buildkit/solver/errdefs"
	"github.com/moby/buildkit/util/grpcerrors"
	"google.golang.org/grpc/codes"

	"towpath.dev/events"
	"towpath.dev/pkg/engine"
)

// fault says what an error of BuildKit means: the source's fault, the operator's, or, as a plain error,
// something that may pass. refused is the error of the Dockerfile's frontend, or nil.
func (r recipe) fault(ctx context.Context, s sources, log *progress, e *engine.Engine, refused, err error) error {
	if ctx.Err() != nil {
		cause := context.Cause(ctx)
		var slow *timeoutError
		if errors.As(cause, &slow) {
			return r.tooSlow(s, log, slow)
		}
		return fmt.Errorf("building the image: %w", cause)
	}
	if away(err) || refused != nil && away(refused) {
		return fmt.Errorf("building the image in the engine at %s: %w", e.Host().URL, err)
	}
	if refused != nil {
		err = refused
	}
	trouble := events.Trouble{What: "building the image", On: r.build.Dockerfile, Why: reason(err)}
	if strings.Contains(err.Error(), " is not allowed") {
		trouble.Do = "take --security and --network=host out of the Dockerfile (builds get no privileges), and push"
	}
	st := log.failed()
	if st != nil {
		trouble.On, trouble.Log = r.place(s, st, err), st.tail
	} else if place := r.sourcePlace(s, err); place != "" {
		trouble.On = place
	}
	if image, ok := unresolved(st); ok {
		return baseFault(trouble, image, err)
	}
	if full(trouble) {
		trouble.Do = "make room on the build engine's disk, then replay"
		return operatorActs(trouble)
	}
	return authorActs(trouble)
}

// full reports whether the build engine's disk is: BuildKit says so, or the step that failed for it.
func full(t events.Trouble) bool {
	for _, text := range append([]string{t.Why}, t.Log...) {
		if strings.Contains(strings.ToLower(text), "no space left on device") {
			return true
		}
	}
	return false
}

// timeoutError is the cause of a build's context that ran out of time.
type timeoutError struct {
	limit string // "10m0s (build.timeout in towpath.yaml)"
	do    string
}

func (t *timeoutError) Error() string { return "it took longer than " + t.limit }

func (r recipe) tooSlow(s sources, log *progress, slow *timeoutError) error {
	trouble := events.Trouble{What: "building the image", On: r.build.Dockerfile, Why: slow.Error(), Do: slow.do}
	if st := log.running(); st != nil {
		trouble.On, trouble.Log = r.place(s, st, nil), st.tail
	}
	return authorActs(trouble)
}

// place names a step by its line in the Dockerfile and its instruction.
func (r recipe) place(s sources, st *step, err error) string {
	if err != nil {
		if place := r.sourcePlace(s, err); place != "" {
			return place
		}
	}
	instruction := st.name
	if _, after, ok := strings.Cut(instruction, "] "); ok && strings.HasPrefix(instruction, "[") {
		instruction = after
	}
	parsed, parseErr := parser.Parse(strings.NewReader(string(s.text)))
	if parseErr == nil {
		for _, node := range parsed.AST.Children {
			if sameInstruction(node.Original, instruction) {
				return fmt.Sprintf("%s:%d: %s", r.build.Dockerfile, node.StartLine, shorten(instruction))
			}
		}
	}
	return r.build.Dockerfile + ": " + shorten(instruction)
}

var (
	variable  = regexp.MustCompile(`\\?\$(\\\{[^}]*\\\}|\w+)`) // as regexp.QuoteMeta leaves it
	heredocIn = regexp.MustCompile(` \(.*\)$`)                 // what a step's name says of a here-document
)

// sameInstruction compares an instruction of the Dockerfile with the name of a step, in which variables
// have been filled in and white space may differ.
func sameInstruction(original, name string) bool {
	a, b := strings.Fields(original), strings.Fields(name)
	if len(a) < 2 || len(b) < 2 || !strings.EqualFold(a[0], b[0]) {
		return false
	}
	pattern := variable.ReplaceAllString(regexp.QuoteMeta(strings.Join(a[1:], " ")), ".*")
	same, err := regexp.Compile("^" + pattern + "$")
	if err != nil {
		return false
	}
	text := strings.Join(b[1:], " ")
	return same.MatchString(text) || strings.Contains(original, "<<") && same.MatchString(heredocIn.ReplaceAllString(text, ""))
}

// sourcePlace returns the line that the error itself names.
func (r recipe) sourcePlace(s sources, err error) string {
	line := 0
	for _, source := range errdefs.Sources(err) {
		if len(source.Ranges) > 0 {
			line = int(source.Ranges[0].Start.Line)
		}
	}
	var location *parser.LocationError
	if line == 0 && errors.As(err, &location) && len(location.Locations) > 0 && len(location.Locations[0]) > 0 {
		line = location.Locations[0][0].Start.Line
	}
	lines := strings.Split(string(s.text), "\n")
	if line < 1 || line > len(lines) {
		return ""
	}
	return fmt.Sprintf("%s:%d: %s", r.build.Dockerfile, line, shorten(strings.TrimSpace(lines[line-1])))
}

func shorten(s string) string {
	s = clean(s)
	if len(s) > 200 {
		return strings.ToValidUTF8(s[:200], "") + "…"
	}
	return s
}

// unresolved returns the image that the failed step was looking for, if that is what it did.
func unresolved(st *step) (image string, ok bool) {
	if st == nil {
		return "", false
	}
	return strings.CutPrefix(st.name, "[internal] load metadata for ")
}

// baseFault tells a base image that does not exist from a registry that cannot be asked.
func baseFault(trouble events.Trouble, image string, err error) error {
	trouble.What = "finding the base image " + image
	text := strings.ToLower(err.Error())
	for _, mark := range []string{"not found", "pull access denied", "manifest unknown", "invalid reference", "authorization failed", "401 unauthorized", "403 forbidden", "no match for platform"} {
		if strings.Contains(text, mark) {
			trouble.Do = "correct FROM, or bring the image to a registry that build may read (or import it into the build engine), and push"
			return authorActs(trouble)
		}
	}
	trouble.Why = "the build engine has no such image and its registry does not answer: " + trouble.Why
	trouble.Do = "let the build engine reach the registry, or import the image into it (docker import, docker load), then replay"
	return &unreachableBase{trouble: trouble}
}

// unreachableBase is a base image whose registry did not answer: tried again for a while, then the
// operator's.
type unreachableBase struct{ trouble events.Trouble }

func (u *unreachableBase) Error() string { return u.trouble.String() }

// away reports whether the engine, rather than the build, failed.
func away(err error) bool {
	return engine.IsUnreachable(err) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) ||
		grpcerrors.Code(err) == codes.Unavailable || strings.HasPrefix(reason(err), "no active session")
}

// noise is what BuildKit and gRPC put in front of the reason.
var noise = regexp.MustCompile(`^(failed to solve: |failed to run Build function: |rpc error: code = \w+ desc = |process ".*" did not complete successfully: )+`)

// reason is the part of BuildKit's error that a person needs.
func reason(err error) string {
	text, _, _ := strings.Cut(err.Error(), "\n")
	text = noise.ReplaceAllString(text, "")
	if i := strings.LastIndex(text, "exit code: "); i >= 0 {
		return "exit code " + strings.TrimSpace(text[i+len("exit code: "):])
	}
	return shorten(text)
}
