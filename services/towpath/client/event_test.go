package client

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"testing"

	"towpath.dev/services/gateway/view"
)

// troubled is a gateway with ten events that hangs up after each second line, and once answers nothing at all.
func troubled(t *testing.T, line string) (*Client, *int) {
	requests := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if requests++; requests == 2 {
			panic(http.ErrAbortHandler)
		}
		after, _ := strconv.Atoi(r.FormValue("after"))
		if last, err := strconv.Atoi(r.FormValue("last")); err == nil {
			after = 10 - last
		}
		limit, err := strconv.Atoi(r.FormValue("limit"))
		if err != nil {
			limit = 10
		}
		for seq := after + 1; seq <= min(after+2, after+limit, 10); seq++ {
			fmt.Fprintf(w, line+"\n", seq)
		}
		w.(http.Flusher).Flush()
		if limit > 2 {
			panic(http.ErrAbortHandler)
		}
	}))
	t.Cleanup(server.Close)
	c, err := New(server.URL, "")
	if err != nil {
		t.Fatal(err)
	}
	return c, &requests
}

func TestFollowingGoesOnWhereItWas(t *testing.T) {
	for name, read := range map[string]func(*Client, EventQuery, func(uint64)) error{
		"events": func(c *Client, q EventQuery, each func(uint64)) error {
			return c.Events(t.Context(), q, func(e view.EventLine) error { each(e.Seq); return nil })
		},
		"cloudevents": func(c *Client, q EventQuery, each func(uint64)) error {
			return c.CloudEvents(t.Context(), q, func(line []byte) error {
				var seq uint64
				_, err := fmt.Sscanf(string(line), `{"seq":%d`, &seq)
				each(seq)
				return err
			})
		},
	} {
		t.Run(name, func(t *testing.T) {
			c, _ := troubled(t, `{"seq":%d,"sequence":"%[1]d"}`)
			var seen []uint64
			err := read(c, EventQuery{Follow: true, Last: 7, Limit: 5}, func(seq uint64) { seen = append(seen, seq) })
			if want := []uint64{4, 5, 6, 7, 8}; err != nil || !slices.Equal(seen, want) {
				t.Errorf("seen %d, %v; want %d", seen, err, want)
			}
		})
	}
}

// What does not follow must not pass for all that there is, and is not asked for again.
func TestAnAnswerThatBreaksOffIsAnError(t *testing.T) {
	c, requests := troubled(t, `{"seq":%d}`)
	err := c.Events(t.Context(), EventQuery{}, func(view.EventLine) error { return nil })
	if err == nil || *requests != 1 {
		t.Errorf("%v after %d requests", err, *requests)
	}
}
