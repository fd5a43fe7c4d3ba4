package events

import (
	"maps"
	"slices"
)

// Types are all types and versions that can be decoded, sorted.
func Types() []Type { return slices.Sorted(maps.Keys(bodies)) }

// bodies makes an empty body for each type and version that can be decoded. Versions are never taken
// away.
var bodies = map[Type]func() Body{
	TypeAppCreated:           func() Body { return new(AppCreated) },
	TypeChangeMerged:         func() Body { return new(ChangeMerged) },
	TypeCommandReceived:      func() Body { return new(CommandReceived) },
	TypeCommandRefused:       func() Body { return new(CommandRefused) },
	TypeCommandFinished:      func() Body { return new(CommandFinished) },
	TypeReplayRequested:      func() Body { return new(ReplayRequested) },
	TypeSettingChanged:       func() Body { return new(SettingChanged) },
	TypeSecretChanged:        func() Body { return new(SecretChanged) },
	TypePolicyPublished:      func() Body { return new(PolicyPublished) },
	TypeBuildQueued:          func() Body { return new(BuildQueued) },
	TypeBuildStarted:         func() Body { return new(BuildStarted) },
	TypeBuildFinished:        func() Body { return new(BuildFinished) },
	TypeArtifactPackaged:     func() Body { return new(ArtifactPackaged) },
	TypeArtifactPublished:    func() Body { return new(ArtifactPublished) },
	TypeArtifactSigned:       func() Body { return new(ArtifactSigned) },
	TypeTaskRunStarted:       func() Body { return new(TaskRunStarted) },
	TypeTaskRunFinished:      func() Body { return new(TaskRunFinished) },
	TypeVetRunStarted:        func() Body { return new(VetRunStarted) },
	TypeVetRunFinished:       func() Body { return new(VetRunFinished) },
	TypePromotionRequested:   func() Body { return new(PromotionRequested) },
	TypePromotionApproved:    func() Body { return new(PromotionApproved) },
	TypePromotionDenied:      func() Body { return new(PromotionDenied) },
	TypePipelineRunQueued:    func() Body { return new(PipelineRunQueued) },
	TypePipelineRunStarted:   func() Body { return new(PipelineRunStarted) },
	TypePipelineRunFinished:  func() Body { return new(PipelineRunFinished) },
	TypeSlotTaken:            func() Body { return new(SlotTaken) },
	TypeSlotDecided:          func() Body { return new(SlotDecided) },
	TypeSlotClosed:           func() Body { return new(SlotClosed) },
	TypeServiceDeployed:      func() Body { return new(ServiceDeployed) },
	TypeServiceUpgraded:      func() Body { return new(ServiceUpgraded) },
	TypeServiceRolledback:    func() Body { return new(ServiceRolledback) },
	TypeServiceRemoved:       func() Body { return new(ServiceRemoved) },
	TypeStageReplayed:        func() Body { return new(StageReplayed) },
	TypeTestSuiteRunStarted:  func() Body { return new(TestSuiteRunStarted) },
	TypeTestSuiteRunFinished: func() Body { return new(TestSuiteRunFinished) },
	TypeTestCaseRunFinished:  func() Body { return new(TestCaseRunFinished) },
	TypeKeyRotated:           func() Body { return new(KeyRotated) },
	TypeTestCaseRunSkipped:   func() Body { return new(TestCaseRunSkipped) },
	TypeLedgerRestored:       func() Body { return new(LedgerRestored) },
	TypeStageStuck:           func() Body { return new(StageStuck) },
	TypeAlarmEnded:           func() Body { return new(AlarmEnded) },
	TypeCheckpointSealed:     func() Body { return new(CheckpointSealed) },
	TypeEnvironmentCreated:   func() Body { return new(EnvironmentCreated) },
	TypeEnvironmentModified:  func() Body { return new(EnvironmentModified) },
	TypeEnvironmentDeleted:   func() Body { return new(EnvironmentDeleted) },
	TypeEnvironmentExpired:   func() Body { return new(EnvironmentExpired) },
	TypeDriftDetected:        func() Body { return new(DriftDetected) },
	TypeDriftResolved:        func() Body { return new(DriftResolved) },
	TypeAlarmRaised:          func() Body { return new(AlarmRaised) },
	TypeAlarmResolved:        func() Body { return new(AlarmResolved) },
}
