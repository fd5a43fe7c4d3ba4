package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

// found are the settings that the app reads from Consul itself; nil where it is not told of one.
var found *consul

// consul follows the keys below a path with blocking queries, as apps do that watch Consul directly.
type consul struct {
	address string
	path    string
	token   string
	mu      sync.RWMutex
	values  map[string]string
}

// discover reads the app's settings where Towpath says that they are, and follows them from then on.
func discover() error {
	c := &consul{address: os.Getenv("CONSUL_HTTP_ADDR"), path: os.Getenv("TOWPATH_CONFIG_PATH")}
	if c.address == "" {
		return nil
	}
	if file := os.Getenv("CONSUL_HTTP_TOKEN_FILE"); file != "" {
		token, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		c.token = strings.TrimSpace(string(token))
	}
	index, err := c.read(0)
	if err != nil {
		return fmt.Errorf("reading my settings: %w", err)
	}
	found = c
	go c.follow(index)
	return nil
}

func (c *consul) follow(index uint64) {
	for {
		next, err := c.read(index)
		if err != nil {
			fmt.Fprintln(os.Stderr, "sample: following my settings:", err)
			time.Sleep(time.Second)
		}
		if next < index { // Consul's indexes went back
			next = 0
		}
		index = next
	}
}

// read waits until something is newer than index, and returns the next one.
func (c *consul) read(index uint64) (uint64, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 40*time.Second)
	defer cancel()
	url := fmt.Sprintf("%s/v1/kv/%s?recurse&index=%d&wait=30s", c.address, c.path, index)
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, err
	}
	request.Header.Set("X-Consul-Token", c.token)
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return 0, fmt.Errorf("GET %s: %s", url, response.Status)
	}
	var pairs []struct {
		Key   string
		Value []byte
	}
	if err := json.NewDecoder(response.Body).Decode(&pairs); err != nil {
		return 0, err
	}
	values := map[string]string{}
	for _, pair := range pairs {
		values[strings.TrimPrefix(pair.Key, c.path)] = string(pair.Value)
	}
	c.mu.Lock()
	c.values = values
	c.mu.Unlock()
	return strconv.ParseUint(response.Header.Get("X-Consul-Index"), 10, 64)
}

// setting is a value that the app was given, or found.
func setting(key string) string {
	if found == nil {
		return os.Getenv(key)
	}
	found.mu.RLock()
	defer found.mu.RUnlock()
	return found.values[key]
}
