package view

import "time"

// Answer is what became of a command.
type Answer struct {
	ID   string `json:"id"`
	Text string `json:"text"` // for people
	Seq  uint64 `json:"seq"`  // of its event
}

// Preview is what a command would do: what a replay keeps, what it runs, and what is not as it was at the attempt before.
type Preview struct {
	Text      string          `json:"text"`              // "2 effects already done are kept, 1 will run, no rebuild"
	Stage     string          `json:"stage,omitempty"`   // that is replayed
	Env       string          `json:"env,omitempty"`     // where; empty for build and vet
	Attempt   int             `json:"attempt,omitempty"` // the number of the new one
	Kept      []string        `json:"kept,omitempty"`    // effects that stay as they are
	Runs      []string        `json:"runs,omitempty"`    // effects that run (again)
	Maybe     []string        `json:"maybe,omitempty"`   // effects that run if the image differs
	Fenced    []string        `json:"fenced,omitempty"`  // attempts under way that are put an end to
	Pins      *Pins           `json:"pins,omitempty"`
	Image     *ImageChange    `json:"image,omitempty"` // of a rollback
	Settings  []SettingChange `json:"settings,omitempty"`
	Approvals []Approval      `json:"approvals,omitempty"`
	Groups    []StuckGroup    `json:"groups,omitempty"` // of a replay of all that is stuck
}

// Pins are what a new attempt uses as it is.
type Pins struct {
	Digest     string `json:"digest,omitempty"`    // of the image; empty where it is to be built
	Definition string `json:"definition"`          // digest of the pipeline
	Policy     string `json:"policy"`              // digest of what it is judged by
	PolicyWas  string `json:"policyWas,omitempty"` // where it is another now
}

// SettingChange is a setting that is not as the attempt before had it. Values of secrets are never shown.
type SettingChange struct {
	Key     string `json:"key"`
	Kind    string `json:"kind"`              // config or secret
	Was     uint64 `json:"was,omitempty"`     // version; 0: it was not used
	Is      uint64 `json:"is,omitempty"`      // version; 0: it is not used any more
	Missing bool   `json:"missing,omitempty"` // it has no value now: the attempt will wait for one
	From    string `json:"from,omitempty"`    // the store that Was is a version of, where Is is of another: they cannot be compared
	// WasValue and IsValue are of configuration that a rollback changes, where they are still known.
	WasValue *string `json:"wasValue,omitempty"`
	IsValue  *string `json:"isValue,omitempty"`
}

// ImageChange is what a rollback runs instead of what runs now.
type ImageChange struct {
	Was    string `json:"was"` // digest
	WasRun string `json:"wasRun"`
	Is     string `json:"is"`
	IsRun  string `json:"isRun"`
}

// Approval is what becomes of an approval that was given, or of a denial.
type Approval struct {
	Env    string `json:"env"`
	Actor  string `json:"actor"`
	Denial bool   `json:"denial,omitempty"`
	Kept   bool   `json:"kept"`
	Why    string `json:"why,omitempty"` // of one that is dropped; of one that is kept: unless what
}

// StuckGroup is stages that are stuck for the same cause.
type StuckGroup struct {
	Cause  string        `json:"cause"`
	Stages []ReplayStage `json:"stages"`
}

// ReplayStage is a stage of a replay of all that is stuck, and what became of it.
type ReplayStage struct {
	Run     string `json:"run"`
	Stage   string `json:"stage"`
	Env     string `json:"env,omitempty"`
	Attempt int    `json:"attempt"`           // that was stuck
	Result  Result `json:"result,omitempty"`  // empty in a preview
	Why     string `json:"why,omitempty"`     // of one that stopped again
	Command string `json:"command,omitempty"` // what replays one that is left or stopped again
}

// Result is what became of one stage of a replay of all that is stuck.
type Result string

// The results.
const (
	Untried   Result = "untried"    // still stuck in the same attempt
	UnderWay  Result = "under way"  // replayed, and not at its end
	WentOn    Result = "went on"    // replayed, and past where it was stuck, or waiting for somebody
	StopAgain Result = "stopped"    // replayed, and it stopped again
	TakenOver Result = "taken over" // somebody or something else has changed it
)

// Replays is how far a replay of all that is stuck is.
type Replays struct {
	ID       string       `json:"id"`
	Actor    string       `json:"actor"`
	Reason   string       `json:"reason,omitempty"`
	At       time.Time    `json:"at"`
	Finished bool         `json:"finished"`
	Why      string       `json:"why,omitempty"` // it ended before everything was tried
	Groups   []StuckGroup `json:"groups"`
	Seq      uint64       `json:"seq"` // of its last event
}
