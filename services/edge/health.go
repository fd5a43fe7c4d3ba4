package edge

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"time"
)

// checker asks replicas for their health, each in its own time.
type checker struct {
	table    *table
	interval time.Duration
	client   *http.Client
	domain   string
	logger   *slog.Logger
}

func newChecker(cfg Config, logger *slog.Logger) *checker {
	return &checker{
		interval: cfg.HealthInterval, domain: cfg.Domain, logger: logger,
		client: &http.Client{
			Timeout:       cfg.HealthTimeout,
			Transport:     &http.Transport{DisableKeepAlives: true, DialContext: dialer(cfg.DialTimeout)},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
}

// watch checks one replica until stop is called.
func (c *checker) watch(r *replica) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		ticker := time.NewTicker(c.interval)
		defer ticker.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-ticker.C:
			}
			why := c.check(ctx, r)
			if ctx.Err() != nil {
				return
			}
			switch c.table.judge(r, time.Now(), func(was condition) condition { return was.checked(why) }) {
			case -1:
				c.logger.Warn("replica is unhealthy", "app", r.place.App, "env", r.place.Env, "instance", r.ID, "why", why)
			case +1:
				c.logger.Info("replica is healthy again", "app", r.place.App, "env", r.place.Env, "instance", r.ID)
			}
		}
	}()
	return cancel
}

// check returns why a replica is not healthy, or nothing. Any answer from 200 to 399 is healthy.
func (c *checker) check(ctx context.Context, r *replica) string {
	path := c.table.health(r.place)
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+r.Address+path, nil)
	if err != nil {
		return err.Error()
	}
	request.Host = r.place.String() + "." + c.domain
	request.Header.Set("User-Agent", "towpath-edge")
	response, err := c.client.Do(request)
	if err != nil {
		return err.Error()
	}
	defer response.Body.Close()
	io.Copy(io.Discard, io.LimitReader(response.Body, 64<<10))
	if response.StatusCode < 200 || response.StatusCode > 399 {
		return fmt.Sprintf("GET %s answers %s", path, response.Status)
	}
	return ""
}
