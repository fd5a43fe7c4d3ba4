package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"strings"
	"time"
)

// kept is where the app reads its secrets itself; nil where it is not told of a Vault.
var kept *vault

// vault reads secrets with a token that the app took over when it started, and keeps alive.
type vault struct {
	address string
	path    string // with {key}
	token   string
}

// unlock takes over the token that waits for this start: whoever uses it second gets nothing.
func unlock() error {
	v := &vault{address: os.Getenv("VAULT_ADDR"), path: os.Getenv("TOWPATH_SECRETS_PATH")}
	file := os.Getenv("VAULT_WRAPPED_TOKEN_FILE")
	if v.address == "" || file == "" {
		return nil
	}
	wrapped, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	v.token = strings.TrimSpace(string(wrapped))
	var got struct {
		Auth struct {
			Token string `json:"client_token"`
			Lease int    `json:"lease_duration"`
		}
	}
	if err := v.ask(http.MethodPost, "sys/wrapping/unwrap", &got); err != nil {
		return fmt.Errorf("taking over my token: %w", err)
	}
	v.token = got.Auth.Token
	kept = v
	go v.renew(time.Duration(got.Auth.Lease) * time.Second / 2)
	return nil
}

func (v *vault) renew(every time.Duration) {
	for range time.Tick(max(every, time.Second)) {
		if err := v.ask(http.MethodPost, "auth/token/renew-self", nil); err != nil {
			fmt.Fprintln(os.Stderr, "sample: keeping my token:", err)
		}
	}
}

// read returns a secret, or why it cannot be had.
func (v *vault) read(key string) string {
	var got struct {
		Data struct{ Data struct{ Value string } }
	}
	if err := v.ask(http.MethodGet, strings.ReplaceAll(v.path, "{key}", key), &got); err != nil {
		return err.Error()
	}
	return got.Data.Data.Value
}

func (v *vault) ask(method, path string, answer any) error {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, method, v.address+"/v1/"+path, bytes.NewReader(nil))
	if err != nil {
		return err
	}
	request.Header.Set("X-Vault-Token", v.token)
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s %s: %s", method, path, response.Status)
	}
	if answer == nil {
		return nil
	}
	return json.NewDecoder(response.Body).Decode(answer)
}
