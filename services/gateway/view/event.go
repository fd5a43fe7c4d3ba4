package view

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"towpath.dev/events"
)

// EventLine is one event as it is sent, with where it is stored and what it says to people.
type EventLine struct {
	Seq     uint64          `json:"seq"`
	Time    time.Time       `json:"time"`
	Subject string          `json:"subject"`
	Type    events.Type     `json:"type"`
	Run     int             `json:"run,omitempty"`       // that it belongs to, or starts
	Actor   string          `json:"actor,omitempty"`     // id of who asked for it; empty where a service decided
	Name    string          `json:"actorName,omitempty"` // as long as the table of actors knows one
	Detail  string          `json:"detail,omitempty"`
	Event   json.RawMessage `json:"event"` // the CDEvent, as it was signed
}

// Event is what an event says in a line, for people: who (an actor's id; empty where a service decided), and what
// beside its type. No type says nothing.
func Event(e events.Event) (actor, detail string) {
	switch b := e.Body.(type) {
	case *events.AppCreated:
		if b.Repository == "" {
			return b.Actor, "hosted here"
		}
		return b.Actor, join(b.Repository, b.Branch)
	case *events.ChangeMerged:
		return b.Run.Actor, join(short(b.Run.SHA), branch(b.Run.Ref))
	case *events.CommandReceived:
		return b.Actor, command(b.Command)
	case *events.CommandRefused:
		return b.Actor, because(command(b.Command), b.Why)
	case *events.ReplayRequested:
		return b.Actor, because(b.Stage, b.Reason)
	case *events.SettingChanged:
		return b.Actor, setting(b.Key, b.Version, b.Deleted)
	case *events.SecretChanged:
		return b.Actor, setting(b.Key, b.Version, b.Deleted)
	case *events.PolicyPublished:
		return b.Actor, because(short(b.Digest), b.Reason)
	case *events.LedgerRestored:
		return b.Actor, because(fmt.Sprintf("%d events of backup %s, %d lost", b.Events, b.Backup, b.Lost), b.Reason)
	case *events.AlarmEnded:
		return b.Actor, because(b.Alarm, b.Reason)
	case *events.ArtifactPublished:
		if b.Published.Run != nil {
			actor = b.Published.Run.Actor
		}
		detail = short(b.Published.Artifact.Digest)
		if n := b.Published.Artifact.ReusedFrom; n > 0 {
			detail += fmt.Sprintf(" of run %d", n)
		}
		return actor, detail
	case *events.KeyRotated:
		return b.Actor, because(join(b.Identity, "signs with", b.Key), b.Reason)
	case *events.EnvironmentCreated:
		return b.Made.Actor, made(b.Name, b.Made)
	case *events.EnvironmentModified:
		return b.Made.Actor, made(b.Name, b.Made)
	case *events.EnvironmentDeleted:
		return b.Made.Actor, "nothing of it is left"
	case *events.PromotionRequested:
		return b.Requestor, fmt.Sprintf("%d approvals wanted", b.Wanted)
	case *events.PromotionApproved:
		return b.Responder, b.Reason
	case *events.PromotionDenied:
		return b.Responder, b.Reason
	}
	for _, says := range []func(events.Body) string{slotEvent, stageEvent, workEvent} {
		if detail = says(e.Body); detail != "" {
			break
		}
	}
	return "", detail
}

// stageEvent is what services say of the stages of a run.
func stageEvent(body events.Body) string {
	switch b := body.(type) {
	case *events.ArtifactPackaged:
		return short(digestOf(b.ID))
	case *events.ArtifactSigned:
		return b.Signed.Statement
	case *events.TaskRunStarted:
		return b.TaskName
	case *events.TaskRunFinished:
		return because(join(b.TaskName, string(b.Outcome)), trouble(b.Result.Trouble, b.Errors))
	case *events.VetRunFinished:
		return because(verdicts(b), trouble(b.Result.Trouble, ""))
	case *events.PipelineRunQueued:
		return b.Waiting.Reason
	case *events.PipelineRunStarted:
		return fmt.Sprintf("slot %d", b.Place.Slot)
	case *events.PipelineRunFinished:
		return because(string(b.Outcome), trouble(b.Result.Trouble, b.Errors))
	case *events.StageReplayed:
		return fmt.Sprintf("%s, attempt %d", b.Stage, b.Attempt)
	case *events.TestSuiteRunStarted:
		return fmt.Sprintf("slot %d", b.Trial.Slot)
	case *events.TestSuiteRunFinished:
		return because(string(b.Outcome), trouble(b.Trial.Trouble, b.Reason))
	case *events.TestCaseRunFinished:
		return because(join(check(b.TestCase), string(b.Outcome)), b.Reason)
	case *events.TestCaseRunSkipped:
		return because(check(b.TestCase), b.Reason)
	case *events.StageStuck:
		return because(fmt.Sprintf("%s, attempt %d", b.Stage, b.Attempt), b.LastError)
	}
	return ""
}

// workEvent is what services say of their own work.
func workEvent(body events.Body) string {
	switch b := body.(type) {
	case *events.BuildQueued:
		return "waits for a free builder"
	case *events.BuildStarted:
		return "fetches the source"
	case *events.BuildFinished:
		if b.ArtifactID == "" {
			return "no image"
		}
		return short(digestOf(b.ArtifactID))
	case *events.VetRunStarted:
		return join(short(digestOf(b.ArtifactID)), "by policy", short(b.Policy))
	case *events.CommandFinished:
		return because(fmt.Sprintf("%s: %d went on, %d stopped again, %d were taken over, %d left alone", b.Verb, b.WentOn, b.Stopped, b.TakenOver, b.Left), b.Why)
	case *events.EnvironmentExpired:
		return "its time was over at " + b.Expired.UTC().Format(time.RFC3339)
	case *events.DriftDetected:
		return fmt.Sprintf("%s: %s, expected: %s", b.What, b.Found, b.Expected)
	case *events.DriftResolved:
		return b.What + " is as it should be, or no longer matters"
	case *events.AlarmRaised:
		return because(b.What, b.Why)
	case *events.AlarmResolved:
		return b.What
	case *events.CheckpointSealed:
		return fmt.Sprintf("events 1–%d, root %s", b.TreeSize, b.RootHash)
	}
	return ""
}

// made says what an environment is made from, and until when.
func made(name string, m events.Made) string {
	if m.From != "" {
		name = join(name, "from", string(m.From))
	}
	if m.Expires != nil {
		name = join(name, "until", m.Expires.UTC().Format(time.RFC3339))
	}
	return name
}

func check(c *events.TestCase) string {
	if c == nil {
		return ""
	}
	return c.Name
}

// slotEvent is what is said of an environment's slots.
func slotEvent(body events.Body) string {
	switch b := body.(type) {
	case *events.SlotTaken:
		return fmt.Sprintf("slot %d: %s %s", b.Slot, b.Kind, short(b.Digest))
	case *events.SlotDecided:
		return because(fmt.Sprintf("slot %d: %s", b.Slot, b.Decision), b.Why)
	case *events.SlotClosed:
		return because(fmt.Sprintf("slot %d: %s", b.Slot, b.Closing), b.Why)
	case *events.ServiceDeployed:
		return fmt.Sprintf("slot %d", b.Deployed.Slot)
	case *events.ServiceUpgraded:
		return fmt.Sprintf("slot %d", b.Deployed.Slot)
	case *events.ServiceRolledback:
		return fmt.Sprintf("slot %d", b.Deployed.Slot)
	case *events.ServiceRemoved:
		return fmt.Sprintf("slot %d", b.Deployed.Slot)
	}
	return ""
}

func command(c events.Command) string {
	what := []string{c.Verb}
	if c.Slot > 0 {
		what = append(what, fmt.Sprintf("to slot %d", c.Slot))
	}
	return because(join(append(what, c.Stage, short(c.Digest))...), c.Reason)
}

func setting(key string, version uint64, deleted bool) string {
	if deleted {
		return key + " deleted"
	}
	return fmt.Sprintf("%s version %d", key, version)
}

// verdicts says "pass in dev, qa; fail in prod".
func verdicts(b *events.VetRunFinished) string {
	if b.Outcome != events.Success {
		return string(b.Outcome)
	}
	var parts []string
	for _, verdict := range []events.Verdict{events.Pass, events.Warn, events.Fail} {
		var where []string
		for _, v := range b.Verdicts {
			if v.Verdict == verdict {
				where = append(where, string(v.Environment))
			}
		}
		if len(where) > 0 {
			parts = append(parts, string(verdict)+" in "+strings.Join(where, ", "))
		}
	}
	return strings.Join(parts, "; ")
}

func trouble(t *events.Trouble, otherwise string) string {
	if t != nil {
		return t.String()
	}
	return otherwise
}

func because(what, why string) string {
	if what != "" && why != "" {
		return what + ": " + why
	}
	return what + why
}

func join(words ...string) string {
	var said []string
	for _, w := range words {
		if w != "" {
			said = append(said, w)
		}
	}
	return strings.Join(said, " ")
}

// short is a digest or commit as people see it.
func short(id string) string {
	if hex, ok := strings.CutPrefix(id, "sha256:"); ok {
		return hex[:min(12, len(hex))]
	}
	return id[:min(7, len(id))]
}

// digestOf is the digest in an artifact's purl.
func digestOf(purl string) string {
	_, rest, _ := strings.Cut(purl, "@")
	digest, _, _ := strings.Cut(rest, "?")
	return digest
}

func branch(ref string) string {
	if name, ok := strings.CutPrefix(ref, "refs/heads/"); ok {
		return "on " + name
	}
	return ref
}
