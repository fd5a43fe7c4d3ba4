package events

import "slices"

// rights says who may write each type. A type that is not here is written by nobody. A writer is never taken
// away from a type: what it wrote while it might would be believed no more.
var rights = map[Type][]Writer{
	TypeAppCreated:      {Gateway},
	TypeChangeMerged:    {Gateway},
	TypeCommandReceived: {Gateway},
	TypeCommandRefused:  {Gateway},
	TypeCommandFinished: {Gateway},
	TypeReplayRequested: {Gateway},
	TypeSettingChanged:  {Gateway, Promote},
	TypeSecretChanged:   {Gateway, Promote},
	TypePolicyPublished: {Gateway, Ledger},

	TypeBuildQueued:       {Build},
	TypeBuildStarted:      {Build},
	TypeBuildFinished:     {Build},
	TypeArtifactPackaged:  {Build},
	TypeArtifactPublished: {Build, Gateway},
	TypeArtifactSigned:    {Build, Vet},

	TypeTaskRunStarted:  {Build, Vet, Promote, Verify},
	TypeTaskRunFinished: {Build, Vet, Promote, Verify},
	TypeStageReplayed:   {Build, Vet, Promote, Verify},

	TypeVetRunStarted:  {Vet},
	TypeVetRunFinished: {Vet},

	TypePromotionRequested:  {Promote},
	TypePromotionApproved:   {Promote},
	TypePromotionDenied:     {Promote},
	TypePipelineRunQueued:   {Promote},
	TypePipelineRunStarted:  {Promote},
	TypePipelineRunFinished: {Promote},
	TypeSlotTaken:           {Promote},
	TypeSlotDecided:         {Promote},
	TypeSlotClosed:          {Promote},
	TypeServiceDeployed:     {Promote},
	TypeServiceUpgraded:     {Promote},
	TypeServiceRolledback:   {Promote},
	TypeServiceRemoved:      {Promote},

	TypeTestSuiteRunStarted:  {Verify},
	TypeTestSuiteRunFinished: {Verify},
	TypeTestCaseRunFinished:  {Verify},
	TypeTestCaseRunSkipped:   {Verify},

	TypeKeyRotated: {Ledger},

	TypeStageStuck: {Watch},

	TypeEnvironmentCreated:  {Promote},
	TypeEnvironmentModified: {Promote},
	TypeEnvironmentDeleted:  {Promote},
	TypeEnvironmentExpired:  {Watch},
	// Promote has the engines and may read the settings: it alone can find that they are not as the ledger says.
	TypeDriftDetected: {Promote},
	TypeDriftResolved: {Promote},
	// These two log in to stores of settings, each for itself.
	TypeAlarmRaised:   {Promote, Gateway},
	TypeAlarmResolved: {Promote, Gateway},

	TypeLedgerRestored: {Ledger},

	TypeCheckpointSealed: {Ledger},
	TypeAlarmEnded:       {Ledger},
}

// MayWrite reports whether a writer may write events of a type. The door stores nothing else, and no reader
// believes anything else.
func MayWrite(w Writer, t Type) bool { return slices.Contains(rights[t], w) }
