// Package hook is what git runs while it takes a push in: it hands what git says to the gateway, over a socket that
// only the gateway's account can open, prints the gateway's answer and exits as the gateway decided. It decides
// nothing itself, and without a gateway's answer it refuses.
package hook

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"
)

// Variables of the environment by which the gateway reaches its hooks through git.
const (
	SocketVariable = "TOWPATH_HOOK_SOCKET" // path of the gateway's socket
	PushVariable   = "TOWPATH_HOOK_PUSH"   // names the push, and proves that git passed it on
)

const (
	bound    = 2 * time.Minute // for the gateway's answer
	maxInput = 4 << 20         // bytes of reference updates
)

// Request is what git told the hook.
type Request struct {
	Push       string `json:"push"`
	Updates    string `json:"updates"` // lines "old new reference"
	Objects    string `json:"objects,omitempty"`
	Alternates string `json:"alternates,omitempty"`
}

// Answer is what the hook says and how it ends.
type Answer struct {
	Text    string `json:"text"`
	Refused bool   `json:"refused,omitempty"`
}

// Run is the hook with a name ("pre-receive"): getenv is its environment. It returns the exit code.
func Run(name string, getenv func(string) string, in io.Reader, out io.Writer) int {
	answer, err := ask(name, getenv, in)
	if err != nil {
		fmt.Fprintf(out, "Towpath could not judge this push: %v\nnothing was taken in; push again, and see the gateway's log if that does not help\n", err)
		return 1
	}
	io.WriteString(out, answer.Text)
	if answer.Refused {
		return 1
	}
	return 0
}

func ask(name string, getenv func(string) string, in io.Reader) (Answer, error) {
	var answer Answer
	updates, err := io.ReadAll(io.LimitReader(in, maxInput+1))
	if err != nil {
		return answer, fmt.Errorf("reading from git: %w", err)
	}
	if len(updates) > maxInput {
		return answer, fmt.Errorf("it changes more references than fit in %d bytes; push fewer at once", maxInput)
	}
	body, err := json.Marshal(Request{
		Push: getenv(PushVariable), Updates: string(updates),
		Objects: getenv("GIT_OBJECT_DIRECTORY"), Alternates: getenv("GIT_ALTERNATE_OBJECT_DIRECTORIES"),
	})
	if err != nil {
		return answer, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), bound)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://gateway/"+name, bytes.NewReader(body))
	if err != nil {
		return answer, err
	}
	client := http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var dialer net.Dialer
			return dialer.DialContext(ctx, "unix", getenv(SocketVariable))
		},
	}}
	response, err := client.Do(request)
	if err != nil {
		return answer, fmt.Errorf("asking the gateway: %w", err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return answer, fmt.Errorf("the gateway answered %s", response.Status)
	}
	if err := json.NewDecoder(io.LimitReader(response.Body, maxInput)).Decode(&answer); err != nil {
		return answer, fmt.Errorf("reading the gateway's answer: %w", err)
	}
	return answer, nil
}
