package ledger_test

import (
	"bytes"
	"fmt"
	"reflect"
	"sync"
	"sync/atomic"
	"testing"

	"towpath.dev/events"
	"towpath.dev/pkg/ledger"
	"towpath.dev/pkg/ledger/ledgertest"
)

// Streams are copied while others write, and come back with their sequences, times, headers and versions.
func TestStreamsComeBackAsTheyWere(t *testing.T) {
	l := ledgertest.Start(t)
	gateway, operator := l.Client("gateway"), l.Client("operator")
	config := gateway.Bucket(events.BucketConfig)
	for i := range 300 {
		appendApp(t, gateway, fmt.Sprintf("app-%d", i))
		if _, err := config.Put(t.Context(), fmt.Sprintf("qa.hello.KEY%d", i%3), []byte(fmt.Sprint(i))); err != nil {
			t.Fatal(err)
		}
	}
	var stop atomic.Bool
	var writing sync.WaitGroup
	writing.Go(func() {
		for i := 0; !stop.Load(); i++ {
			appendApp(t, gateway, fmt.Sprintf("later-%d", i))
		}
	})
	copies := map[string]*bytes.Buffer{}
	var saved []ledger.StreamCopy
	for _, name := range operator.Streams() {
		copies[name] = &bytes.Buffer{}
		s, err := operator.SaveStream(t.Context(), name, copies[name])
		if err != nil {
			t.Fatal(err)
		}
		saved = append(saved, s)
	}
	stop.Store(true)
	writing.Wait()
	before := records(t, gateway)
	versions, err := config.List(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}

	l.Stop()
	l.Wipe()
	l.Restart()
	gateway, operator = l.Connect("gateway"), l.Connect("operator")
	config = gateway.Bucket(events.BucketConfig)
	for _, s := range saved {
		if err := operator.LoadStream(t.Context(), s, bytes.NewReader(copies[s.Name].Bytes())); err != nil {
			t.Fatal(err)
		}
		if err := operator.LoadStream(t.Context(), s, bytes.NewReader(copies[s.Name].Bytes())); err == nil {
			t.Errorf("%s was restored over what is there", s.Name)
		}
	}
	after := records(t, gateway)
	if len(after) < 300 || len(after) > len(before) {
		t.Fatalf("%d events of %d", len(after), len(before))
	}
	for i, r := range after {
		if !reflect.DeepEqual(r, before[i]) {
			t.Fatalf("event %d is %+v, was %+v", i+1, r, before[i])
		}
	}
	if got, err := config.List(t.Context(), ""); err != nil || !reflect.DeepEqual(got, versions) {
		t.Errorf("settings: %v, %d of %d", err, len(got), len(versions))
	}
	if value, err := config.GetRevision(t.Context(), "qa.hello.KEY0", versions[0].Revision-3); err != nil || string(value) != "294" {
		t.Errorf("an earlier version: %q, %v", value, err)
	}
	l.Provision()
	if r := appendApp(t, gateway, "afterwards"); r.Seq != uint64(len(after))+1 {
		t.Errorf("the next event is %d after %d", r.Seq, len(after))
	}
}

// A copy that lost bytes, or some of which are others, does not become a stream.
func TestDamagedCopies(t *testing.T) {
	l := ledgertest.Start(t)
	operator := l.Client("operator")
	for i := range 50 {
		appendApp(t, l.Client("gateway"), fmt.Sprintf("app-%d", i))
	}
	name := events.StreamName(1)
	var whole bytes.Buffer
	saved, err := operator.SaveStream(t.Context(), name, &whole)
	if err != nil {
		t.Fatal(err)
	}
	l.Stop()
	l.Wipe()
	l.Restart()
	operator = l.Connect("operator")
	if err := operator.LoadStream(t.Context(), saved, bytes.NewReader(whole.Bytes()[:whole.Len()/2])); err == nil {
		t.Error("half of a copy became a stream")
	}
	other := bytes.Clone(whole.Bytes())
	other[len(other)/2] ^= 1
	if err := operator.LoadStream(t.Context(), saved, bytes.NewReader(other)); err == nil {
		t.Error("a copy with another byte became a stream")
	}
	if err := operator.LoadStream(t.Context(), saved, &whole); err != nil {
		t.Error(err)
	}
}

func records(t *testing.T, c *ledger.Client) []ledger.Record {
	t.Helper()
	var list []ledger.Record
	if _, err := c.Read(t.Context(), 0, func(r ledger.Record) error { list = append(list, r); return nil }); err != nil {
		t.Fatal(err)
	}
	return list
}
