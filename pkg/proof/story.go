package proof

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"towpath.dev/events"
	"towpath.dev/pkg/ledger"
	"towpath.dev/pkg/pipeline"
	"towpath.dev/pkg/policy"
	"towpath.dev/pkg/registry"
)

// story is what a run's events amount to.
type story struct {
	c          *checker
	start      *events.RunStart
	first      ledger.Record
	definition pipeline.Definition
	policies   map[string]policy.Policy
	policy     string // digest of the one that the run is judged by
	settings   map[string]ledger.Record
	built      map[string]ledger.Record // by digest: the event that says that the image is the run's
	verdicts   []vetted
	verified   map[events.Slug]string // environment → digest that stands there
	slots      map[events.Slug]map[int]*slot
	given      map[events.Slug][]approval      // approvals, in order
	rejudged   map[events.Slug]uint64          // environment → the verdict that changed what stands before it
	denied     map[events.Slug][]ledger.Record // environment → the denials, in order
	envs       []events.Slug                   // that the run reached, in order
}

type vetted struct {
	at     ledger.Record
	event  *events.VetRunFinished
	report reportStatement
}

type slot struct {
	taken     ledger.Record
	event     *events.SlotTaken
	decided   *events.SlotDecided
	closed    *events.SlotClosed
	approved  []string // who let it in
	uncounted []string // whose approval did not count, and why
	denied    []string // who had denied it when it was decided, and why
}

// approval is one that the gate recorded.
type approval struct {
	seq uint64
	events.Promotion
}

// tell goes through the events in order and judges each by those before it. The fault is why they do not
// add up.
func (c *checker) tell() *Fault {
	s := &story{
		c: c, policies: map[string]policy.Policy{}, settings: map[string]ledger.Record{}, built: map[string]ledger.Record{},
		verified: map[events.Slug]string{}, slots: map[events.Slug]map[int]*slot{}, given: map[events.Slug][]approval{},
		rejudged: map[events.Slug]uint64{}, denied: map[events.Slug][]ledger.Record{},
	}
	for _, r := range c.before {
		if fault := s.context(r); fault != nil {
			return fault
		}
	}
	if len(c.records) == 0 || c.records[0].Seq != c.bundle.First {
		return forged("event %d, with which it begins, is not shown, or cannot be read", c.bundle.First)
	}
	if fault := s.begin(c.records[0]); fault != nil {
		return fault
	}
	for _, r := range c.records[1:] {
		if fault := s.context(r); fault != nil {
			return fault
		}
		if fault := s.next(r); fault != nil {
			return fault
		}
	}
	for _, d := range c.documents {
		if !d.used {
			return forged("evidence %s about image %s is named by nothing", d.referrer, d.image)
		}
	}
	return s.conclude()
}

// context takes note of what runs depend on: policies and settings.
func (s *story) context(r ledger.Record) *Fault {
	switch b := r.Event.Body.(type) {
	case *events.PolicyPublished:
		if digestOf(b.Text) != b.Digest {
			return about(r, "the policy's text is not the one with digest %s", b.Digest)
		}
		p, err := policy.ParseText(b.Text)
		if err != nil {
			return about(r, "the policy cannot be read: %v", err)
		}
		s.policies[b.Digest] = p
	case *events.SettingChanged:
		s.settings[settingKey("setting", b.Environment, b.Key, b.Store, b.Version)] = r
	case *events.SecretChanged:
		s.settings[settingKey("secret", b.Environment, b.Key, b.Store, b.Version)] = r
	}
	return nil
}

// begin reads the run's first event.
func (s *story) begin(r ledger.Record) *Fault {
	s.first, s.start = r, startOf(r)
	about0 := s.c.bundle.About
	switch {
	case s.start == nil || r.Subject.Writer != events.Gateway:
		return about(r, "it begins no run")
	case s.start.App != about0.App || r.Subject.App != about0.App:
		return about(r, "it begins a run of %s, not of %s", s.start.App, about0.App)
	case digestOf(s.start.Definition) != s.start.DefinitionDigest:
		return about(r, "the definition is not the one with digest %s", s.start.DefinitionDigest)
	}
	var err error
	if s.definition, err = pipeline.ParseCanonical(s.start.Definition); err != nil {
		return about(r, "the definition cannot be read: %v", err)
	}
	s.policy = s.start.PolicyDigest
	if _, known := s.policies[s.policy]; !known {
		return about(r, "the policy %s, by which it is judged, is missing", s.policy)
	}
	if b, ok := r.Event.Body.(*events.ArtifactPublished); ok {
		s.built[b.Published.Artifact.Digest] = r
	}
	return nil
}

// next takes one event in.
func (s *story) next(r ledger.Record) *Fault {
	mine := r.Subject.Run == s.c.bundle.About.Run && r.Subject.App == s.c.bundle.About.App
	if mine && r.Event.ChainID != s.first.Event.ChainID && r.Event.ChainID != "" {
		return about(r, "it belongs to another run's chain: the first event is not that of %s/%d", r.Subject.App, r.Subject.Run)
	}
	switch b := r.Event.Body.(type) {
	case *events.ReplayRequested:
		if mine && b.Policy != "" {
			if _, known := s.policies[b.Policy]; !known {
				return about(r, "the policy %s, by which the run is judged from then on, is missing", b.Policy)
			}
			s.policy = b.Policy
		}
	case *events.ArtifactPublished:
		if mine && r.Subject.Writer == events.Build {
			return s.publish(r, b)
		}
	case *events.VetRunFinished:
		if mine && b.Outcome == events.Success {
			return s.judged(r, b)
		}
	case *events.PromotionApproved:
		if mine {
			return s.approve(r, b)
		}
	case *events.PromotionDenied:
		if mine {
			s.denied[b.Environment] = append(s.denied[b.Environment], r)
		}
	case *events.SlotTaken:
		return s.take(r, b)
	case *events.SlotDecided:
		return s.decide(r, b)
	case *events.SlotClosed:
		return s.close(r, b)
	}
	return nil
}

// publish: the image is of this commit, and the build service's signed provenance says so.
func (s *story) publish(r ledger.Record, b *events.ArtifactPublished) *Fault {
	artifact, err := registry.ParsePURL(b.ID)
	if err != nil || string(artifact.Digest) != b.Published.Artifact.Digest {
		return about(r, "it names the image %s, and says its digest is %s", b.ID, b.Published.Artifact.Digest)
	}
	p, err := s.c.provenance(b.Published.Artifact.Provenance, artifact)
	if err != nil {
		return about(r, "%v", err)
	}
	said := p.BuildDefinition.ExternalParameters
	switch {
	case said.Commit != s.start.SHA:
		return about(r, "its provenance says that the image is of commit %s, the run is of %s", said.Commit, s.start.SHA)
	case said.DefinitionDigest != s.start.DefinitionDigest:
		return about(r, "its provenance says that the definition was %s, the run pins %s", said.DefinitionDigest, s.start.DefinitionDigest)
	case p.BuildDefinition.InternalParameters.App != string(s.start.App):
		return about(r, "its provenance is of the app %s", p.BuildDefinition.InternalParameters.App)
	}
	s.built[string(artifact.Digest)] = r
	return nil
}

// judged: vet's signed report on this image says what the event says.
func (s *story) judged(r ledger.Record, b *events.VetRunFinished) *Fault {
	artifact, err := registry.ParsePURL(b.ArtifactID)
	if err != nil {
		return about(r, "it names no image: %v", err)
	}
	if _, known := s.built[string(artifact.Digest)]; !known {
		return about(r, "it judges image %s, which the run did not publish", artifact.Digest)
	}
	if _, known := s.policies[b.Policy]; !known {
		return about(r, "the policy %s, by which it judged, is missing", b.Policy)
	}
	if b.Report == nil {
		return about(r, "it names no signed report")
	}
	report, err := s.c.report(b.Report.Digest, artifact)
	if err != nil {
		return about(r, "%v", err)
	}
	if report.Predicate.Policy != b.Policy || report.Predicate.App != s.start.App ||
		!(len(report.Predicate.Verdicts) == 0 && len(b.Verdicts) == 0 || reflect.DeepEqual(report.Predicate.Verdicts, b.Verdicts)) {
		return about(r, "it says something else than vet's signed report")
	}
	s.rejudge(r, b)
	s.verdicts = append(s.verdicts, vetted{r, b, report})
	return nil
}

// rejudge: approvals that were given under another verdict on the same image were given to something else.
func (s *story) rejudge(r ledger.Record, b *events.VetRunFinished) {
	if len(s.verdicts) == 0 {
		return
	}
	before := s.verdicts[len(s.verdicts)-1].event
	if before.ArtifactID != b.ArtifactID {
		return
	}
	for _, env := range s.definition.EnvironmentNames() {
		was, _ := before.For(env)
		is, _ := b.For(env)
		if !was.Same(is) {
			s.rejudged[env] = r.Seq
		}
	}
}

// rule returns what an environment asks of people, by the policy that is named.
func (s *story) rule(digest string, env events.Slug) (policy.Approval, bool) {
	p, known := s.policies[digest]
	asked := 0
	if e, ok := s.definition.Environment(env); ok {
		asked = e.Approvals
	}
	return p.ApprovalRule(env, asked), known
}

// approve: a person who may have given this approval did so before.
func (s *story) approve(r ledger.Record, b *events.PromotionApproved) *Fault {
	rule, known := s.rule(b.Policy, b.Environment)
	if !known {
		return about(r, "the policy %s, by which it counts, is missing", b.Policy)
	}
	if author := s.authored(b.Responder); author && !rule.AuthorMayApprove {
		return about(r, "%s, who approved, wrote or pushed the change", b.Responder)
	}
	artifact, err := registry.ParsePURL(b.ArtifactID)
	if err != nil {
		return about(r, "it names no image: %v", err)
	}
	for _, earlier := range s.c.records {
		if earlier.Seq >= r.Seq {
			break
		}
		command, ok := earlier.Event.Body.(*events.CommandReceived)
		if ok && command.Verb == events.VerbApprove && command.Run == r.Subject.Run && command.App == r.Subject.App &&
			command.Environment == b.Environment && command.Actor == b.Responder && command.Digest == string(artifact.Digest) {
			s.given[b.Environment] = append(s.given[b.Environment], approval{r.Seq, b.Promotion})
			return nil
		}
	}
	return about(r, "nobody called %s said so before", b.Responder)
}

func (s *story) authored(actor string) bool {
	return actor == s.start.Actor || slices.Contains(s.start.Authors, actor)
}

// approvers are the people whose approval the gate counted when the run took a slot, and those whose approval it did not.
func (s *story) approvers(b *events.SlotTaken) (counted, uncounted []string) {
	var since []events.Promotion
	for _, a := range s.given[b.Environment] {
		if a.seq > s.rejudged[b.Environment] {
			since = append(since, a.Promotion)
		}
	}
	counted = policy.Counted(since, b.ArtifactID, s.policy)
	said := map[string]bool{}
	for _, a := range s.given[b.Environment] {
		why := ""
		switch {
		case slices.Contains(counted, a.Responder) || said[a.Responder]:
			continue
		case a.ArtifactID != b.ArtifactID:
			why = "was for another image"
		case a.seq <= s.rejudged[b.Environment]:
			why = "was given before the verdict changed"
		default:
			why = "was given under another policy"
		}
		said[a.Responder] = true
		uncounted = append(uncounted, fmt.Sprintf("that of %s (event %d) %s", a.Responder, a.seq, why))
	}
	return counted, uncounted
}

// take: the gates were open when the run took its slot.
func (s *story) take(r ledger.Record, b *events.SlotTaken) *Fault {
	env := b.Environment
	if r.Subject.Env != env || string(r.Subject.Key) != fmt.Sprint(b.Slot) {
		return about(r, "it stands as slot %s of %s, and says that it is slot %d of %s", r.Subject.Key, r.Subject.Env, b.Slot, env)
	}
	if s.slots[env] == nil {
		s.slots[env] = map[int]*slot{}
	}
	if last := s.lastSlot(env); last != nil && b.Slot != last.event.Slot+1 {
		return about(r, "slot %d follows slot %d", b.Slot, last.event.Slot)
	}
	one := &slot{taken: r, event: b}
	s.slots[env][b.Slot] = one
	if b.Run != s.c.bundle.About.Run {
		return nil
	}
	if b.Digest != "" {
		if _, known := s.built[b.Digest]; !known {
			return about(r, "it deploys image %s, which the run did not publish", b.Digest)
		}
	}
	if fault := s.pinned(r, b); fault != nil || b.Kind != events.KindDeploy {
		return fault
	}
	if !slices.Contains(s.envs, env) {
		s.envs = append(s.envs, env)
	}
	if fault := s.passed(r, b); fault != nil {
		return fault
	}
	if fault := s.undenied(r, b); fault != nil {
		return fault
	}
	one.approved, one.uncounted = s.approvers(b)
	rule, _ := s.rule(s.policy, env)
	if len(one.approved) < rule.Count {
		return about(r, "%s asks for %d approvals, and %d that count came before%s", env, rule.Count, len(one.approved), butNot(one.uncounted))
	}
	return s.cameThrough(r, b)
}

// undenied: the gate had not refused the attempt, and whoever had denied the image had taken that back.
func (s *story) undenied(r ledger.Record, b *events.SlotTaken) *Fault {
	said := s.answers(b.Environment, b.Digest, r.Seq)
	for _, no := range s.denied[b.Environment] {
		d := no.Event.Body.(*events.PromotionDenied)
		back := slices.ContainsFunc(said, func(a answer) bool {
			return a.Actor == d.Responder && a.Verb == events.VerbApprove && a.seq > no.Seq
		}) || s.overruled(b.Environment, b.Digest, d.Responder, r.Seq)
		switch {
		case no.Subject.Attempt == b.Attempt:
			return about(r, "it was denied before (event %d), and nobody asked for another attempt since", no.Seq)
		case d.Responder != "" && strings.Contains(d.ArtifactID, "@"+b.Digest) && !back:
			return about(r, "%s denied it before (event %d)%s, and neither took that back nor was overruled", d.Responder, no.Seq, because(d.Reason))
		}
	}
	return nil
}

// answer is what somebody said about an image.
type answer struct {
	seq uint64
	id  string
	events.Command
}

// answers are what each actor said last about an image for an environment, before an event, in order.
func (s *story) answers(env events.Slug, digest string, before uint64) (last []answer) {
	about := s.c.bundle.About
	for _, r := range s.c.records {
		b, ok := r.Event.Body.(*events.CommandReceived)
		if !ok || r.Seq >= before || b.App != about.App || b.Run != about.Run || b.Environment != env || b.Digest != digest ||
			b.Verb != events.VerbApprove && b.Verb != events.VerbDeny {
			continue
		}
		last = slices.DeleteFunc(last, func(a answer) bool {
			return a.Actor == b.Actor || a.Verb == events.VerbDeny && slices.Contains(b.Overrules, a.id)
		})
		last = append(last, answer{r.Seq, b.ID, b.Command})
	}
	return last
}

// overruled reports whether every denial that somebody gave of an image for an environment was overruled by an approval,
// before an event, and there was one.
func (s *story) overruled(env events.Slug, digest, denier string, before uint64) bool {
	about := s.c.bundle.About
	var denials, overruled []string
	for _, r := range s.c.records {
		b, ok := r.Event.Body.(*events.CommandReceived)
		if !ok || r.Seq >= before || b.App != about.App || b.Run != about.Run || b.Environment != env || b.Digest != digest {
			continue
		}
		switch {
		case b.Verb == events.VerbDeny && b.Actor == denier:
			denials = append(denials, b.ID)
		case b.Verb == events.VerbApprove:
			overruled = append(overruled, b.Overrules...)
		}
	}
	return len(denials) > 0 && !slices.ContainsFunc(denials, func(id string) bool { return !slices.Contains(overruled, id) })
}

func because(reason string) string {
	if reason == "" {
		return ""
	}
	return ": " + reason
}

// butNot names the approvals that did not count.
func butNot(uncounted []string) string {
	if len(uncounted) == 0 {
		return ""
	}
	return "; not counted: " + strings.Join(uncounted, ", ")
}

func (s *story) lastSlot(env events.Slug) (last *slot) {
	for _, one := range s.slots[env] {
		if last == nil || one.event.Slot > last.event.Slot {
			last = one
		}
	}
	return last
}

// pinned: whoever set the settings that are used is on record.
func (s *story) pinned(r ledger.Record, b *events.SlotTaken) *Fault {
	for _, of := range []struct {
		kind, store string
		pins        map[string]uint64
	}{{"setting", b.Pins.ConfigStore, b.Pins.Config}, {"secret", b.Pins.SecretStore, b.Pins.Secrets}} {
		for key, version := range of.pins {
			_, known := s.settings[settingKey(of.kind, b.Environment, key, of.store, version)]
			if !known {
				_, known = s.settings[settingKey(of.kind, b.Environment, key, "", version)]
			}
			if !known {
				return about(r, "it uses version %d of the %s %s, and the event about that is missing", version, of.kind, key)
			}
		}
	}
	return nil
}

// passed: vetting let this image into this environment before.
func (s *story) passed(r ledger.Record, b *events.SlotTaken) *Fault {
	for _, v := range slices.Backward(s.verdicts) {
		if !strings.Contains(v.event.ArtifactID, "@"+b.Digest) {
			continue
		}
		for _, one := range v.event.Verdicts {
			if one.Environment == b.Environment && one.Verdict != events.Fail {
				return nil
			}
			if one.Environment == b.Environment {
				return about(r, "vetting kept image %s out of %s (event %d)", b.Digest, b.Environment, v.at.Seq)
			}
		}
	}
	return about(r, "no vetting let image %s into %s before", b.Digest, b.Environment)
}

// cameThrough: the same image was verified in the environment before.
func (s *story) cameThrough(r ledger.Record, b *events.SlotTaken) *Fault {
	for i, e := range s.definition.Environments {
		if e.Name != b.Environment {
			continue
		}
		if i == 0 {
			return nil
		}
		if earlier := s.definition.Environments[i-1].Name; s.verified[earlier] != b.Digest {
			return about(r, "image %s was not verified in %s before", b.Digest, earlier)
		}
		return nil
	}
	return about(r, "the run's definition has no environment %s", b.Environment)
}

func (s *story) decide(r ledger.Record, b *events.SlotDecided) *Fault {
	one := s.slots[b.Environment][b.Slot]
	switch {
	case one == nil:
		return nil // it was taken before the range
	case one.decided != nil:
		return about(r, "slot %d was decided before", b.Slot)
	}
	one.decided = b
	for _, a := range s.answers(b.Environment, one.event.Digest, r.Seq) {
		if a.Verb == events.VerbDeny {
			one.denied = append(one.denied, fmt.Sprintf("%s (event %d)%s", a.Actor, a.seq, because(a.Reason)))
		}
	}
	return nil
}

// close: a version that is called verified was.
func (s *story) close(r ledger.Record, b *events.SlotClosed) *Fault {
	one := s.slots[b.Environment][b.Slot]
	switch {
	case one == nil:
		return nil
	case one.decided == nil || one.decided.Decision != events.Live || one.closed != nil:
		return about(r, "slot %d is closed, and was not live", b.Slot)
	}
	one.closed = b
	if !b.Closing.Stands() || one.event.Run != s.c.bundle.About.Run || one.event.Kind != events.KindDeploy {
		return nil
	}
	if b.Closing == events.Verified && !s.tested(one, r.Seq) {
		return about(r, "it says that the version was verified, and no test of it succeeded before")
	}
	if b.Closing == events.Unverified && !s.skipped(one, r.Seq) {
		return about(r, "it says that the verification was skipped, and nobody asked for that before")
	}
	s.verified[b.Environment] = one.event.Digest
	return nil
}

// skipped reports whether somebody asked for the slot's verification to be skipped.
func (s *story) skipped(one *slot, before uint64) bool {
	return slices.ContainsFunc(s.c.records, func(r ledger.Record) bool {
		b, ok := r.Event.Body.(*events.CommandReceived)
		return ok && r.Seq < before && b.Verb == events.VerbSkip && b.App == s.start.App && b.Run == one.event.Run && b.Environment == one.event.Environment
	})
}

// tested reports whether the slot's version was verified.
func (s *story) tested(one *slot, before uint64) bool {
	for _, r := range s.c.records {
		if r.Seq >= before || r.Seq < one.taken.Seq {
			continue
		}
		b, ok := r.Event.Body.(*events.TestSuiteRunFinished)
		if ok && b.Trial.Slot == one.event.Slot && r.Subject.Env == one.event.Environment && b.Outcome == events.Success && b.Trial.Digest == one.event.Digest {
			return true
		}
	}
	return false
}

// conclude says what is proven.
func (s *story) conclude() *Fault {
	say := func(format string, v ...any) {
		s.c.verdict.Story = append(s.c.verdict.Story, fmt.Sprintf(format, v...))
	}
	run := fmt.Sprintf("%s/%d", s.start.App, s.c.bundle.About.Run)
	what := "commit " + s.start.SHA
	if s.start.SHA == "" {
		what = "an image built elsewhere"
	}
	authors := ""
	if len(s.start.Authors) > 0 {
		authors = " by " + strings.Join(s.start.Authors, ", ")
	}
	var digests, where []string
	for _, v := range s.verdicts {
		if a, err := registry.ParsePURL(v.event.ArtifactID); err == nil && !slices.Contains(digests, string(a.Digest)) {
			digests = append(digests, string(a.Digest))
		}
	}
	for _, env := range s.envs {
		if s.verified[env] != "" {
			where = append(where, string(env))
		}
	}
	route := []string{what + authors, orElse(strings.Join(digests, ", "), "no vetted image"), orElse(strings.Join(where, ", "), "no environment")}
	say("%s: %s", run, strings.Join(route, " → "))
	say("%s was pushed or submitted by %s, at %s", run, s.start.Actor, s.first.Time.UTC().Format(time.RFC3339))
	for _, env := range s.envs {
		for _, line := range s.fate(env) {
			say("%s", line)
		}
	}
	if fault := s.runsThere(); fault != nil {
		return fault
	}
	s.limits()
	return nil
}

// fate says what became of the run in an environment.
func (s *story) fate(env events.Slug) (lines []string) {
	numbers := []int{}
	for n, one := range s.slots[env] {
		if one.event.Run == s.c.bundle.About.Run {
			numbers = append(numbers, n)
		}
	}
	slices.Sort(numbers)
	for _, n := range numbers {
		one := s.slots[env][n]
		line := fmt.Sprintf("%s: %s in slot %d at %s", env, one.event.Digest, n, one.taken.Time.UTC().Format(time.RFC3339))
		if one.event.Kind != events.KindDeploy {
			line += fmt.Sprintf(" (%s)", one.event.Kind)
		}
		if len(one.approved) > 0 {
			line += ", approved by " + strings.Join(one.approved, ", ")
		}
		line += butNot(one.uncounted)
		if len(one.denied) > 0 {
			line += ", denied by " + strings.Join(one.denied, ", ")
		}
		switch {
		case one.decided == nil:
			line += ", not decided yet"
		case one.decided.Decision != events.Live:
			line += ", abandoned: " + one.decided.Why
		case one.closed == nil:
			line += ", live, not verified yet"
		default:
			line += ", live, " + string(one.closed.Closing)
			if b := one.closed.Skipped; b != nil {
				line += fmt.Sprintf(" (%s skipped its verification: %s)", b.Actor, b.Reason)
			}
		}
		lines = append(lines, line)
	}
	return lines
}

// runsThere: where the proof is about an environment, the run's version is the one that has the traffic.
func (s *story) runsThere() *Fault {
	env := s.c.bundle.About.Environment
	if env == "" {
		return nil
	}
	var live *slot
	for _, one := range s.slots[env] {
		if one.decided != nil && one.decided.Decision == events.Live && (live == nil || one.event.Slot > live.event.Slot) {
			live = one
		}
	}
	switch {
	case live == nil:
		return forged("nothing of %s is shown to be live in %s", s.start.App, env)
	case live.event.Run != s.c.bundle.About.Run:
		return about(live.taken, "%s/%d has the traffic in %s", s.start.App, live.event.Run, env)
	}
	s.c.verdict.Story = append(s.c.verdict.Story, fmt.Sprintf("%s runs %s, as of %s", env, live.event.Digest, s.c.verdict.AsOf.Format(time.RFC3339)))
	return nil
}

// limits says what is not proven.
func (s *story) limits() {
	add := func(format string, v ...any) {
		s.c.verdict.Limits = append(s.c.verdict.Limits, fmt.Sprintf(format, v...))
	}
	add("nothing is said about what came after event %d (%s)", s.c.end.Size, s.c.verdict.AsOf.Format(time.RFC3339))
	if len(s.c.terms.Witnesses) == 0 {
		for _, signed := range s.c.checkpoints {
			if len(signed.Unknown) > 0 {
				add("the cosignature by %s was not checked: give its key with --witness-key", strings.Join(signed.Unknown, ", "))
			}
		}
		add("that the ledger's key holder shows everybody this same ledger rests on no witness")
		for _, k := range s.c.end.Keys {
			if retired := k.Retired(); !retired.IsZero() {
				add("that nobody made this up later: the ledger's key that sealed it was retired at %s, and whoever has it can date back to before then", retired.Format(time.RFC3339))
			}
		}
	}
	if approvers := s.everyApprover(); len(approvers) > 0 {
		add("that %s might approve: roles and who holds an account are not in the ledger, and the gateway judged them when it took the approval in", strings.Join(approvers, ", "))
	}
	if unread := s.c.unread(); len(unread) > 0 {
		add("what %d events say that this build cannot read, and passed over as every service of its age does: %s", len(s.c.parked), strings.Join(unread, "; "))
	}
	if s.start.SHA == "" {
		add("how the image was built: it came from outside, and only its vetting is on record")
	}
}

// everyApprover names those whose approval counted for one of the run's slots.
func (s *story) everyApprover() (who []string) {
	for _, env := range s.envs {
		for _, one := range s.slots[env] {
			for _, a := range one.approved {
				if !slices.Contains(who, a) {
					who = append(who, a)
				}
			}
		}
	}
	slices.Sort(who)
	return who
}

func orElse(text, otherwise string) string {
	if text == "" {
		return otherwise
	}
	return text
}
