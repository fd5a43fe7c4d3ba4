package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"towpath.dev/events"
	"towpath.dev/pkg/identity"
	"towpath.dev/pkg/ledger"
	"towpath.dev/pkg/ledger/bus"
	"towpath.dev/pkg/ledger/fold"
)

// apps is how many apps the runs of a filled ledger belong to.
const apps = 100

// entry is one event and where it is stored.
type entry struct {
	subject events.Subject
	event   events.Event
}

// wholeStory is what a run through dev, qa and prod leaves in the ledger, from the push to the end: the events, about
// as large as the services write them, without their decisions.
func wholeStory(app events.Slug, n int) ([]entry, error) {
	subject, start, err := runStart(app, n)
	if err != nil {
		return nil, err
	}
	all := []entry{{subject, start}}
	chain, at := start.ChainID, start.Time
	digest := fmt.Sprintf("sha256:%064x", n)
	purl := "pkg:oci/" + string(app) + "@" + digest + "?repository_url=127.0.0.1:7050/" + string(app)
	name := fold.Name(app, n)
	add := func(s events.Subject, b events.Body, w events.Writer) {
		e := events.New(w, at, chain, b, events.Path(all[len(all)-1].event.ID))
		all = append(all, entry{s, e})
	}
	build := func(b events.Body, key events.Slug) {
		add(events.BuildSubject(epoch, b.Type(), app, n, key, 1), b, events.Build)
	}
	vet := func(b events.Body, key events.Slug) {
		add(events.VetSubject(epoch, b.Type(), app, n, key, 1), b, events.Vet)
	}
	about := func(id string) events.About { return events.About{ID: id} }
	build(&events.BuildStarted{About: about(name)}, "")
	build(&events.ArtifactPackaged{About: about(purl), Change: events.Reference{ID: fmt.Sprintf("%040x", n)}}, "")
	build(&events.ArtifactSigned{About: about(purl), Signature: "c2lnbmF0dXJl", Signed: events.Signed{Statement: "https://slsa.dev/provenance/v1", Referrer: digest}}, "provenance")
	build(&events.ArtifactPublished{About: about(purl), Published: events.Published{Artifact: events.Artifact{Repository: "127.0.0.1:7050/" + string(app), Digest: digest, Tree: digest}}}, "")
	build(&events.TaskRunFinished{About: about(name), TaskName: "build", Outcome: events.Success, Result: events.Result{Attempt: 1}}, "")
	vet(&events.VetRunStarted{About: about(name), ArtifactID: purl, Policy: digest}, "")
	verdict := &events.VetRunFinished{About: about(name), ArtifactID: purl, Policy: digest, Outcome: events.Success, Result: events.Result{Attempt: 1}}
	for _, env := range benchEnvironments {
		verdict.Verdicts = append(verdict.Verdicts, events.EnvironmentVerdict{Environment: events.Slug(env), Verdict: events.Warn, Reasons: []string{"1 finding of severity low"}})
	}
	verdict.Findings = []events.Finding{{Rule: "base-unknown", Severity: "low", Message: "the base image is not one that the policy names", Layer: digest}}
	vet(verdict, "")
	for _, text := range benchEnvironments {
		env := events.Slug(text)
		place, key := fmt.Sprintf("%s/%s", name, env), fmt.Sprintf("%s/%s/%d", app, env, n)
		slot := func(b events.Body) {
			add(events.SlotSubject(epoch, b.Type(), app, env, n), b, events.Promote)
		}
		promote := func(b events.Body) {
			add(events.PromoteSubject(epoch, b.Type(), app, n, env, "", 1), b, events.Promote)
		}
		trial := events.Trial{Slot: n, Attempt: 1, Digest: digest}
		slot(&events.SlotTaken{About: about(key), Slot: n, Run: n, Attempt: 1, ArtifactID: purl, Repository: "127.0.0.1:7050/" + string(app), Digest: digest, Kind: events.KindDeploy, Environment: env})
		promote(&events.PipelineRunStarted{About: about(place), PipelineName: string(app), URI: "http://127.0.0.1:7070", Place: events.Place{Environment: env, Attempt: 1, Slot: n}})
		slot(&events.SlotDecided{About: about(key), Slot: n, Decision: events.Live, Environment: env, Instances: []events.Instance{{ID: "towpath-" + key, Address: "127.0.0.1:32768"}}})
		add(events.VerifySubject(epoch, events.TypeTestSuiteRunFinished, app, n, env, n, 0, 1),
			&events.TestSuiteRunFinished{About: about(key), Environment: events.Reference{ID: text}, Outcome: events.Success, Trial: trial}, events.Verify)
		slot(&events.SlotClosed{About: about(key), Slot: n, Closing: events.Verified, Environment: env})
		promote(&events.PipelineRunFinished{About: about(place), Outcome: events.Success, Result: events.Result{Environment: env, Attempt: 1}})
	}
	return all, nil
}

// fill writes runs into the ledger as its door would store them, until there are so many events, before the bus is
// opened that is measured: on a server with the same configuration that does not wait for the disk, with the door's own
// rights and many under way, so that a large ledger takes seconds.
func (in *installation) fill(ctx context.Context, config bus.Config, total int) error {
	var text bytes.Buffer
	if err := bus.WriteConfig(&text, config); err != nil {
		return err
	}
	unsynced := bytes.Replace(text.Bytes(), []byte("sync_interval: always"), []byte("sync_interval: 10m"), 1)
	if bytes.Equal(unsynced, text.Bytes()) {
		return errors.New("the bus's configuration does not say how it syncs")
	}
	if err := os.MkdirAll(config.StoreDir, 0o700); err != nil {
		return err
	}
	path := filepath.Join(config.StoreDir, "fill.conf")
	if err := os.WriteFile(path, unsynced, 0o600); err != nil {
		return err
	}
	o, err := server.ProcessConfigFile(path)
	if err != nil {
		return err
	}
	o.NoSigs, o.DontListen = true, true
	s, err := server.NewServer(o)
	if err != nil {
		return err
	}
	s.Start()
	defer func() { s.Shutdown(); s.WaitForShutdown() }()
	if !s.ReadyForConnections(10 * time.Second) {
		return errors.New("the server is not ready after 10 s")
	}
	if err := ledger.Provision(ctx, in.optionsOn(s, events.Operator)); err != nil {
		return err
	}
	client, err := ledger.Connect(ctx, in.optionsOn(s, events.Ledger))
	if err != nil {
		return err
	}
	defer client.Close()
	return in.publish(ctx, client, total)
}

// publish stores runs, until there are so many events.
func (in *installation) publish(ctx context.Context, client *ledger.Client, total int) error {
	signers := map[events.Writer]*identity.Signer{}
	written, window := 0, make(chan struct{}, 256)
	inbox := client.Conn().NewInbox()
	failed := make(chan error, 1)
	acknowledged, err := client.Conn().Subscribe(inbox, func(m *nats.Msg) {
		<-window
		if len(m.Data) > 0 && string(m.Data[:9]) == `{"error":` {
			select {
			case failed <- fmt.Errorf("%s", m.Data):
			default:
			}
		}
	})
	if err != nil {
		return err
	}
	defer acknowledged.Unsubscribe()
	for run := 0; written < total; run++ {
		story, err := wholeStory(events.Slug("app-"+strconv.Itoa(run%apps)), run/apps+1)
		if err != nil {
			return err
		}
		for _, e := range story {
			if written == total {
				break
			}
			m, err := in.stored(signers, e)
			if err != nil {
				return err
			}
			select {
			case window <- struct{}{}:
			case err := <-failed:
				return err
			case <-ctx.Done():
				return ctx.Err()
			}
			m.Reply = inbox
			if err := client.Conn().PublishMsg(m); err != nil {
				return err
			}
			written++
		}
	}
	for range cap(window) { // until the last is acknowledged
		select {
		case window <- struct{}{}:
		case <-time.After(30 * time.Second):
			return fmt.Errorf("not all of %d events were acknowledged", written)
		}
	}
	return nil
}

// stored is the message that the door publishes for an event.
func (in *installation) stored(signers map[events.Writer]*identity.Signer, e entry) (*nats.Msg, error) {
	signer := signers[e.subject.Writer]
	if signer == nil {
		var err error
		if signer, err = identity.LoadSigner(in.keys, string(e.subject.Writer)); err != nil {
			return nil, err
		}
		signers[e.subject.Writer] = signer
	}
	body, err := e.event.Encode()
	if err != nil {
		return nil, err
	}
	m := nats.NewMsg(e.subject.String())
	m.Data = body
	for name, value := range e.event.Headers() {
		m.Header[name] = []string{value}
	}
	m.Header[events.SignatureName] = []string{signer.Sign(m.Subject, body)}
	return m, nil
}
