package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"time"

	"github.com/docker/docker/api/types/image"
	"github.com/docker/docker/api/types/registry"
)

// Push sends an image that the engine has under a name ("127.0.0.1:7050/hello:run-1") to that name's
// registry, which the engine, not this process, must reach. It returns the digest of the manifest that
// the registry took. A push is given up when it says nothing for two minutes. An error that wraps
// ErrNotFound means that the engine has no such image.
func (e *Engine) Push(ctx context.Context, name string, credentials Credentials) (digest string, err error) {
	doing := "pushing " + name
	auth, err := registry.EncodeAuthConfig(registry.AuthConfig{Username: credentials.Username, Password: credentials.Password})
	if err != nil {
		return "", fmt.Errorf("%s: %w", doing, err)
	}
	heard, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	watchdog := time.AfterFunc(pullSilence, func() { cancel(context.DeadlineExceeded) })
	defer watchdog.Stop()
	progress, err := e.api.ImagePush(heard, name, image.PushOptions{RegistryAuth: auth})
	if err == nil {
		digest, err = pushed(progress, func() { watchdog.Reset(pullSilence) })
		progress.Close()
	}
	if err != nil && ctx.Err() == nil && context.Cause(heard) == context.DeadlineExceeded {
		err = context.DeadlineExceeded
	}
	return digest, e.fault(ctx, pullSilence, doing, err)
}

// reported is how an engine with containerd's image store says what it pushed: in a line for people.
var reported = regexp.MustCompile(`: digest: (sha256:[0-9a-f]{64}) size: [0-9]+$`)

// pushed reads a push's stream of progress to its end and returns the digest that it reports.
func pushed(r io.Reader, heard func()) (digest string, err error) {
	d := json.NewDecoder(r)
	for {
		var message struct {
			Error  string `json:"error"`
			Status string `json:"status"`
			Aux    struct {
				Digest string `json:"Digest"`
			} `json:"aux"`
		}
		switch err := d.Decode(&message); {
		case errors.Is(err, io.EOF) && digest == "":
			return "", errors.New("the engine reported no digest")
		case errors.Is(err, io.EOF):
			return digest, nil
		case err != nil:
			return "", err
		case message.Error != "":
			return "", errors.New(message.Error)
		case message.Aux.Digest != "":
			digest = message.Aux.Digest
		case digest == "":
			if found := reported.FindStringSubmatch(message.Status); found != nil {
				digest = found[1]
			}
		}
		heard()
	}
}
