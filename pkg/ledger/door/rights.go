package door

import (
	"slices"

	"towpath.dev/events"
)

// rights says who may write each type. A type that is not here is written by nobody.
var rights = map[events.Type][]events.Writer{
	events.TypeAppCreated:      {events.Gateway},
	events.TypeChangeMerged:    {events.Gateway},
	events.TypeCommandReceived: {events.Gateway},
	events.TypeCommandRefused:  {events.Gateway},
	events.TypeCommandFinished: {events.Gateway},
	events.TypeReplayRequested: {events.Gateway},
	events.TypeSettingChanged:  {events.Gateway, events.Promote},
	events.TypeSecretChanged:   {events.Gateway, events.Promote},
	events.TypePolicyPublished: {events.Gateway, events.Ledger},

	events.TypeBuildQueued:       {events.Build},
	events.TypeBuildStarted:      {events.Build},
	events.TypeBuildFinished:     {events.Build},
	events.TypeArtifactPackaged:  {events.Build},
	events.TypeArtifactPublished: {events.Build, events.Gateway},
	events.TypeArtifactSigned:    {events.Build, events.Vet},

	events.TypeTaskRunStarted:  {events.Build, events.Vet, events.Promote, events.Verify},
	events.TypeTaskRunFinished: {events.Build, events.Vet, events.Promote, events.Verify},
	events.TypeStageReplayed:   {events.Build, events.Vet, events.Promote, events.Verify},

	events.TypeVetRunStarted:  {events.Vet},
	events.TypeVetRunFinished: {events.Vet},

	events.TypePromotionRequested:  {events.Promote},
	events.TypePromotionApproved:   {events.Promote},
	events.TypePromotionDenied:     {events.Promote},
	events.TypePipelineRunQueued:   {events.Promote},
	events.TypePipelineRunStarted:  {events.Promote},
	events.TypePipelineRunFinished: {events.Promote},
	events.TypeSlotTaken:           {events.Promote},
	events.TypeSlotDecided:         {events.Promote},
	events.TypeSlotClosed:          {events.Promote},
	events.TypeServiceDeployed:     {events.Promote},
	events.TypeServiceUpgraded:     {events.Promote},
	events.TypeServiceRolledback:   {events.Promote},
	events.TypeServiceRemoved:      {events.Promote},

	events.TypeTestSuiteRunStarted:  {events.Verify},
	events.TypeTestSuiteRunFinished: {events.Verify},
	events.TypeTestCaseRunFinished:  {events.Verify},
	events.TypeTestCaseRunSkipped:   {events.Verify},

	events.TypeKeyRotated: {events.Ledger},

	events.TypeStageStuck: {events.Watch},

	events.TypeLedgerRestored: {events.Ledger},

	events.TypeCheckpointSealed: {events.Ledger},
}

// mayWrite reports whether a writer may write events of a type.
func mayWrite(w events.Writer, t events.Type) bool { return slices.Contains(rights[t], w) }
