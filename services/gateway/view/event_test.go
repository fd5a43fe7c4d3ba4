package view

import (
	"testing"
	"time"

	"towpath.dev/events"
)

// TestNoEventSaysNothing: every type there is tells people who, or what. A new one has to be added here.
func TestNoEventSaysNothing(t *testing.T) {
	digest := "sha256:ab12ab12ab12ab12"
	image := "pkg:oci/hello@" + digest + "?repository_url=r/hello"
	until := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	about := events.About{ID: "hello/1"}
	deployed := events.Deployed{Slot: 3}
	drift := events.Drift{App: "hello", Environment: "dev", Slot: 3, What: "config GREETING", Expected: "version 4", Found: "version 6"}
	said := map[events.Body]string{ // what beside the actor
		&events.AppCreated{Actor: "ann"}: "hosted here",
		&events.ChangeMerged{Run: events.RunStart{Actor: "ann", SHA: "0123456789", Ref: "refs/heads/main"}}:                                "0123456 on main",
		&events.CommandReceived{Command: events.Command{Verb: events.VerbHold, Actor: "ann", Reason: "a drill"}}:                           "hold: a drill",
		&events.CommandRefused{Command: events.Command{Verb: events.VerbApprove, Actor: "ann"}, Why: "you wrote it"}:                       "approve: you wrote it",
		&events.CommandFinished{Verb: events.VerbReplay, WentOn: 2, Stopped: 1, Why: "the gateway ended"}:                                  "replay: 2 went on, 1 stopped again, 0 were taken over, 0 left alone: the gateway ended",
		&events.ReplayRequested{Actor: "ann", Stage: "build"}:                                                                              "build",
		&events.SettingChanged{Actor: "ann", Key: "GREETING", Version: 4}:                                                                  "GREETING version 4",
		&events.SecretChanged{Actor: "ann", Key: "PASSWORD", Deleted: true}:                                                                "PASSWORD deleted",
		&events.PolicyPublished{Actor: "ann", Digest: digest}:                                                                              "ab12ab12ab12",
		&events.BuildQueued{About: about}:                                                                                                  "waits for a free builder",
		&events.BuildStarted{About: about}:                                                                                                 "fetches the source",
		&events.BuildFinished{About: about, ArtifactID: image}:                                                                             "ab12ab12ab12",
		&events.ArtifactPackaged{About: events.About{ID: image}}:                                                                           "ab12ab12ab12",
		&events.ArtifactPublished{Published: events.Published{Artifact: events.Artifact{Digest: digest}}}:                                  "ab12ab12ab12",
		&events.ArtifactSigned{Signed: events.Signed{Statement: "provenance"}}:                                                             "provenance",
		&events.TaskRunStarted{TaskName: "release"}:                                                                                        "release",
		&events.TaskRunFinished{TaskName: "build", Outcome: events.Failure, Errors: "no such file"}:                                        "build failure: no such file",
		&events.VetRunStarted{About: about, ArtifactID: image, Policy: digest}:                                                             "ab12ab12ab12 by policy ab12ab12ab12",
		&events.VetRunFinished{Outcome: events.Success, Verdicts: []events.EnvironmentVerdict{{Environment: "dev", Verdict: events.Pass}}}: "pass in dev",
		&events.PromotionRequested{Promotion: events.Promotion{Requestor: "ann", Wanted: 2}}:                                               "2 approvals wanted",
		&events.PromotionApproved{Promotion: events.Promotion{Responder: "ann", Reason: "fine"}}:                                           "fine",
		&events.PromotionDenied{Promotion: events.Promotion{Responder: "ann", Reason: "not on Fridays"}}:                                   "not on Fridays",
		&events.PipelineRunQueued{Waiting: events.Waiting{Reason: "0 of 1 approvals given"}}:                                               "0 of 1 approvals given",
		&events.PipelineRunStarted{Place: events.Place{Slot: 3}}:                                                                           "slot 3",
		&events.PipelineRunFinished{Outcome: events.Success}:                                                                               "success",
		&events.SlotTaken{Slot: 3, Kind: events.KindDeploy, Digest: digest}:                                                                "slot 3: deploy ab12ab12ab12",
		&events.SlotDecided{Slot: 3, Decision: events.Live}:                                                                                "slot 3: live",
		&events.SlotClosed{Slot: 3, Closing: events.Verified}:                                                                              "slot 3: verified",
		&events.ServiceDeployed{Deployed: deployed}:                                                                                        "slot 3",
		&events.ServiceUpgraded{Deployed: deployed}:                                                                                        "slot 3",
		&events.ServiceRolledback{Deployed: deployed}:                                                                                      "slot 3",
		&events.ServiceRemoved{Deployed: deployed}:                                                                                         "slot 3",
		&events.StageReplayed{Stage: "build", Attempt: 2}:                                                                                  "build, attempt 2",
		&events.TestSuiteRunStarted{Trial: events.Trial{Slot: 3}}:                                                                          "slot 3",
		&events.TestSuiteRunFinished{Outcome: events.Success}:                                                                              "success",
		&events.TestCaseRunFinished{TestCase: &events.TestCase{Name: "GET /"}, Outcome: events.Failure, Reason: "500"}:                     "GET / failure: 500",
		&events.TestCaseRunSkipped{TestCase: &events.TestCase{Name: "GET /"}, Reason: "an earlier one failed"}:                             "GET /: an earlier one failed",
		&events.KeyRotated{Identity: "build", Key: "ab12", Actor: "ann", Reason: "every quarter"}:                                          "build signs with ab12: every quarter",
		&events.LedgerRestored{Actor: "ann", Backup: "b1", Events: 7}:                                                                      "7 events of backup b1, 0 lost",
		&events.StageStuck{Stage: "build", Attempt: 1, LastError: "the engine is away"}:                                                    "build, attempt 1: the engine is away",
		&events.AlarmEnded{Actor: "ann", Alarm: "a leaf is another", Reason: "restored"}:                                                   "a leaf is another: restored",
		&events.AlarmRaised{Alarm: events.Alarm{What: "login of promote", Why: "it was used already"}}:                                     "login of promote: it was used already",
		&events.AlarmResolved{Alarm: events.Alarm{What: "login of promote"}}:                                                               "login of promote",
		&events.CheckpointSealed{TreeSize: 42, RootHash: "AbCd="}:                                                                          "events 1–42, root AbCd=",
		&events.EnvironmentCreated{Name: "demo", Made: events.Made{Actor: "ann", From: "prod", Expires: &until}}:                           "demo from prod until 2026-01-02T03:04:05Z",
		&events.EnvironmentModified{Name: "demo", Made: events.Made{Actor: "ann", From: "prod"}}:                                           "demo from prod",
		&events.EnvironmentDeleted{Name: "demo"}:                                                                                           "nothing of it is left",
		&events.EnvironmentExpired{Environment: "demo", Expired: until}:                                                                    "its time was over at 2026-01-02T03:04:05Z",
		&events.DriftDetected{Drift: drift}:                                                                                                "config GREETING: version 6, expected: version 4",
		&events.DriftResolved{Drift: drift}:                                                                                                "config GREETING is as it should be, or no longer matters",
	}
	told := map[events.Type]bool{}
	for body, want := range said {
		told[body.Type()] = true
		if _, got := Event(events.Event{Body: body}); got != want {
			t.Errorf("%s says %q, want %q", body.Type(), got, want)
		}
	}
	for _, typ := range events.Types() {
		if !told[typ] {
			t.Errorf("%s: what does it say? Add it to Event, and here", typ)
		}
	}
	for _, body := range []events.Body{&events.KeyRotated{Actor: "ann"}, &events.EnvironmentCreated{Made: events.Made{Actor: "ann"}}, &events.PromotionApproved{Promotion: events.Promotion{Responder: "ann"}}} {
		if actor, _ := Event(events.Event{Body: body}); actor != "ann" {
			t.Errorf("%s was asked for by %q", body.Type(), actor)
		}
	}
}
