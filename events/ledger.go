package events

import "time"

// TypeCheckpointSealed is the type that the ledger service writes.
const TypeCheckpointSealed Type = "dev.cdeventsx.towpath-checkpoint.sealed.0.1.0"

// CheckpointSealed is written when the events up to TreeSize are sealed: their hashes are the leaves of a
// Merkle tree (RFC 6962) whose root the ledger signed. It is not written where nothing but checkpoints
// came since the one before. Its subject id is checkpoint/<serial>; serials are dense. Nobody acts on it;
// proofs stand on it.
type CheckpointSealed struct {
	About
	TreeSize uint64 `json:"treeSize"` // how many events of the epoch are sealed, from the first
	RootHash string `json:"rootHash"` // base64
	// Checkpoint is the signed note (C2SP tlog-checkpoint), with the witness's cosignature where there is one.
	Checkpoint string `json:"checkpoint"`
}

func (*CheckpointSealed) Type() Type  { return TypeCheckpointSealed }
func (*CheckpointSealed) custom() any { return nil }

// TypeAlarmEnded is the type that the ledger service writes when it is told to seal on.
const TypeAlarmEnded Type = "dev.cdeventsx.towpath-alarm.ended.0.1.0"

// AlarmEnded is written when an operator has looked into it that the ledger was not what was sealed, and has sealing
// begin anew over what is stored. It is not written where the alarm is raised: nothing is sealed then. Its subject id is
// alarm/ and the time. Nobody acts on it; reports show it.
type AlarmEnded struct {
	About
	Alarm  string `json:"alarm"`            // what was found
	Sealed uint64 `json:"sealed,omitempty"` // events under the newest checkpoint that was signed before
	Aside  string `json:"aside,omitempty"`  // folder below the ledger service's, with that checkpoint and the tree of before
	Reason string `json:"reason"`
	Actor  string `json:"actor"`
}

// AlarmEndedSubject is where alarm.ended is stored: once for each time that an alarm was ended.
func AlarmEndedSubject(epoch int, at time.Time) Subject {
	return Subject{
		Epoch: epoch, Writer: Ledger, Subject: TypeAlarmEnded.Subject(), Predicate: TypeAlarmEnded.Predicate(),
		Key: Key(at.UTC().Format(time.RFC3339Nano)),
	}
}

func (*AlarmEnded) Type() Type  { return TypeAlarmEnded }
func (*AlarmEnded) custom() any { return nil }
