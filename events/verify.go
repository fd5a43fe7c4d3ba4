package events

// Types that verify writes.
const (
	TypeTestSuiteRunStarted  Type = "dev.cdevents.testsuiterun.started.0.3.0"
	TypeTestSuiteRunFinished Type = "dev.cdevents.testsuiterun.finished.0.3.0"
	TypeTestCaseRunFinished  Type = "dev.cdevents.testcaserun.finished.0.3.0"
	TypeTestCaseRunSkipped   Type = "dev.cdevents.testcaserun.skipped.0.2.0"
)

// TestSuite names the checks of an app in an environment.
type TestSuite struct {
	ID   string `json:"id"`
	Name string `json:"name,omitempty"`
}

// Trial is the customData of the verification events.
type Trial struct {
	Slot    int      `json:"slot"`
	Attempt int      `json:"attempt"`
	Digest  string   `json:"digest"`
	Trouble *Trouble `json:"trouble,omitempty"`
	// Skipped says that nobody verified anything, because an operator said so.
	Skipped *Skip `json:"skipped,omitempty"`
}

// Skip is who skipped a verification, and why.
type Skip struct {
	Command string `json:"command"` // its id
	Actor   string `json:"actor"`
	Reason  string `json:"reason"`
}

// TestSuiteRunStarted is written when the verification of a live slot begins. Its subject id is
// <app>/<run>/<env>/<slot>.
type TestSuiteRunStarted struct {
	About
	Environment Reference  `json:"environment"`
	TestSuite   *TestSuite `json:"testSuite,omitempty"`
	Trial       Trial      `json:"-"`
}

// TestSuiteRunFinished ends the verification of a slot. Promote closes the slot on it. Its outcome is
// Cancel where the verification was skipped; no TestSuiteRunStarted comes before it then.
type TestSuiteRunFinished struct {
	About
	Environment Reference  `json:"environment"`
	TestSuite   *TestSuite `json:"testSuite,omitempty"`
	Outcome     Outcome    `json:"outcome"`
	Reason      string     `json:"reason,omitempty"`
	Trial       Trial      `json:"-"`
}

// TestCaseRunFinished is one check. Its subject id is <app>/<run>/<env>/<slot>/<check>.
type TestCaseRunFinished struct {
	About
	Environment  Reference  `json:"environment"`
	TestSuiteRun *Reference `json:"testSuiteRun,omitempty"`
	TestCase     *TestCase  `json:"testCase,omitempty"`
	Outcome      Outcome    `json:"outcome"`
	Reason       string     `json:"reason,omitempty"`
	Trial        Trial      `json:"-"`
}

// TestCaseRunSkipped is one check that was not run, because an operator skipped the verification. Its
// subject id is that of TestCaseRunFinished.
type TestCaseRunSkipped struct {
	About
	Environment  Reference  `json:"environment"`
	TestSuiteRun *Reference `json:"testSuiteRun,omitempty"`
	TestCase     *TestCase  `json:"testCase,omitempty"`
	Reason       string     `json:"reason,omitempty"`
	Trial        Trial      `json:"-"`
}

// TestCase is one check as it was declared.
type TestCase struct {
	ID   string `json:"id"`
	Name string `json:"name,omitempty"`
	Type string `json:"type,omitempty"` // functional, integration, e2e …
}

func (*TestSuiteRunStarted) Type() Type     { return TypeTestSuiteRunStarted }
func (b *TestSuiteRunStarted) custom() any  { return &b.Trial }
func (*TestSuiteRunFinished) Type() Type    { return TypeTestSuiteRunFinished }
func (b *TestSuiteRunFinished) custom() any { return &b.Trial }
func (*TestCaseRunFinished) Type() Type     { return TypeTestCaseRunFinished }
func (b *TestCaseRunFinished) custom() any  { return &b.Trial }
func (*TestCaseRunSkipped) Type() Type      { return TypeTestCaseRunSkipped }
func (b *TestCaseRunSkipped) custom() any   { return &b.Trial }
