package system

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sort"
	"strings"
	"sync"
	"time"
)

// Load is a stream of requests through the edge at a fixed rate. A request that is late does not hold back the
// next one.
type Load struct {
	done   chan struct{}
	result LoadResult
}

// LoadResult says how a load went.
type LoadResult struct {
	Wanted, Sent, Failed int
	For                  time.Duration
	Failures             []string       // at most ten, in words
	Answers              map[string]int // bodies and how often each came
	latencies            []time.Duration
}

func (r LoadResult) String() string {
	at := func(share float64) time.Duration {
		if len(r.latencies) == 0 {
			return 0
		}
		return r.latencies[int(share*float64(len(r.latencies)-1))].Round(100 * time.Microsecond)
	}
	text := fmt.Sprintf("%d requests in %s, %d failed; p50 %s, p99 %s, slowest %s",
		r.Sent, r.For.Round(time.Second), r.Failed, at(0.5), at(0.99), at(1))
	if len(r.Failures) > 0 {
		text += "\n" + strings.Join(r.Failures, "\n")
	}
	return text
}

// Bodies lists the different answers, one a line.
func (r LoadResult) Bodies() string {
	var lines []string
	for body := range r.Answers {
		lines = append(lines, strings.TrimSpace(body)+"\n")
	}
	sort.Strings(lines)
	return strings.Join(lines, "")
}

// StartLoad sends rate requests a second for so long: every fifth is a POST with a body, half of them reuse
// connections to the edge. Any status but 200 and any error is a failure; nothing is retried.
func (s *System) StartLoad(rate int, length time.Duration, env, app, path string) *Load {
	l := &Load{done: make(chan struct{})}
	keeping := &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 64, DisableKeepAlives: false}}
	closing := &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	total := int(float64(rate) * length.Seconds())
	l.result = LoadResult{Wanted: total, For: length, Answers: map[string]int{}}
	go func() {
		defer close(l.done)
		defer keeping.CloseIdleConnections()
		var lock sync.Mutex
		var group sync.WaitGroup
		begin := time.Now()
		for i := range total {
			time.Sleep(time.Until(begin.Add(time.Duration(i) * time.Second / time.Duration(rate))))
			group.Go(func() {
				http := keeping
				if i%2 == 0 {
					http = closing
				}
				at := time.Now()
				body, err := s.loadOne(http, i%5 == 0, env, app, path)
				took := time.Since(at)
				lock.Lock()
				defer lock.Unlock()
				l.result.Sent++
				l.result.latencies = append(l.result.latencies, took)
				if err == nil {
					l.result.Answers[body]++
					return
				}
				l.result.Failed++
				if len(l.result.Failures) < 10 {
					l.result.Failures = append(l.result.Failures, fmt.Sprintf("request %d at %s, after %s: %v",
						i, at.Sub(begin).Round(time.Millisecond), took.Round(time.Millisecond), err))
				}
			})
		}
		group.Wait()
		slices.Sort(l.result.latencies)
	}()
	return l
}

func (s *System) loadOne(through *http.Client, post bool, env, app, path string) (string, error) {
	method, body := http.MethodGet, io.Reader(nil)
	if post {
		method, body = http.MethodPost, strings.NewReader(strings.Repeat("x", 2000))
	}
	request, err := http.NewRequestWithContext(context.Background(), method, "http://"+s.edge+path, body)
	if err != nil {
		return "", err
	}
	request.Host = app + "." + env + ".localhost"
	response, err := through.Do(request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(io.LimitReader(response.Body, 1<<16))
	if err != nil {
		return "", fmt.Errorf("reading the answer: %w", err)
	}
	if response.StatusCode != http.StatusOK {
		return "", fmt.Errorf("%s: %.200s", response.Status, text)
	}
	return string(text), nil
}

// Wait waits until the load has ended and every request was answered or has failed.
func (l *Load) Wait() LoadResult {
	<-l.done
	return l.result
}
