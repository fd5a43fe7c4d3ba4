package events

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
