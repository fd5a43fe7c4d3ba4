package seal

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/mod/sumdb/tlog"
)

// Tree holds the hashes of the tree in the order of tlog's stored hashes, 64 bytes a leaf: in a file, or
// in memory. It is safe for concurrent use. The file is never synced: what a power cut takes is computed
// again from the stream.
type Tree struct {
	mu     sync.RWMutex
	file   *os.File
	memory []Hash // where there is no file
	size   int64  // leaves
}

// OpenTree opens the tree in a file, which is made when absent; "" keeps it in memory. What a crash left
// half written at the end is cut off.
func OpenTree(path string) (*Tree, error) {
	t := &Tree{}
	if path == "" {
		return t, nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("opening the sealed tree: %w", err)
	}
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("opening the sealed tree: %w", err)
	}
	t.file = file
	info, err := file.Stat()
	if err != nil {
		file.Close()
		return nil, fmt.Errorf("opening the sealed tree: %w", err)
	}
	hashes := info.Size() / tlog.HashSize
	t.size = hashes / 2 // two hashes a leaf but for the open ends, so never too many
	for tlog.StoredHashCount(t.size+1) <= hashes {
		t.size++
	}
	return t, nil
}

// Close closes the file.
func (t *Tree) Close() error {
	if t.file == nil {
		return nil
	}
	return t.file.Close()
}

// Size is how many leaves the tree has: the sequence of the last event in it.
func (t *Tree) Size() uint64 {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return uint64(t.size)
}

// Append adds a leaf.
func (t *Tree) Append(leaf Hash) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	hashes, err := tlog.StoredHashesForRecordHash(t.size, leaf, tlog.HashReaderFunc(t.read))
	if err == nil {
		err = t.write(tlog.StoredHashIndex(0, t.size), hashes)
	}
	if err != nil {
		return fmt.Errorf("adding leaf %d to the sealed tree: %w", t.size, err)
	}
	t.size++
	return nil
}

func (t *Tree) write(at int64, hashes []Hash) error {
	if t.file == nil {
		t.memory = append(t.memory[:at], hashes...)
		return nil
	}
	data := make([]byte, 0, len(hashes)*tlog.HashSize)
	for _, h := range hashes {
		data = append(data, h[:]...)
	}
	_, err := t.file.WriteAt(data, at*tlog.HashSize)
	return err
}

// errBeyond is wrapped for a hash that the tree does not have.
var errBeyond = errors.New("beyond the end of the tree")

// ReadHashes implements tlog.HashReader.
func (t *Tree) ReadHashes(indexes []int64) ([]Hash, error) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.read(indexes)
}

func (t *Tree) read(indexes []int64) ([]Hash, error) {
	hashes := make([]Hash, len(indexes))
	for i, at := range indexes {
		switch {
		case at < 0 || at >= tlog.StoredHashCount(t.size):
			return nil, fmt.Errorf("hash %d: %w", at, errBeyond)
		case t.file == nil:
			hashes[i] = t.memory[at]
		default:
			if _, err := t.file.ReadAt(hashes[i][:], at*tlog.HashSize); errors.Is(err, io.EOF) {
				return nil, fmt.Errorf("hash %d: %w", at, errBeyond)
			} else if err != nil {
				return nil, fmt.Errorf("reading hash %d of the sealed tree: %w", at, err)
			}
		}
	}
	return hashes, nil
}

// Leaf returns the hash of the leaf with a sequence.
func (t *Tree) Leaf(seq uint64) (Hash, error) {
	h, err := t.ReadHashes([]int64{tlog.StoredHashIndex(0, int64(seq)-1)})
	if err != nil {
		return Hash{}, err
	}
	return h[0], nil
}

// Root returns the root of the tree's first size leaves; of none it is the hash of nothing.
func (t *Tree) Root(size uint64) (Hash, error) {
	if size > t.Size() {
		return Hash{}, fmt.Errorf("root of %d leaves of %d: %w", size, t.Size(), errBeyond)
	}
	return tlog.TreeHash(int64(size), t)
}

// Truncate cuts the tree back to its first size leaves.
func (t *Tree) Truncate(size uint64) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if size > uint64(t.size) {
		return fmt.Errorf("cutting the sealed tree of %d leaves to %d: %w", t.size, size, errBeyond)
	}
	t.size = int64(size)
	hashes := tlog.StoredHashCount(t.size)
	if t.file == nil {
		t.memory = t.memory[:hashes]
		return nil
	}
	if err := t.file.Truncate(hashes * tlog.HashSize); err != nil {
		return fmt.Errorf("cutting the sealed tree to %d leaves: %w", size, err)
	}
	return nil
}
