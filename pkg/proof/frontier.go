package proof

import (
	"fmt"
	"math/bits"

	"golang.org/x/mod/sumdb/tlog"

	"towpath.dev/pkg/seal"
)

// frontier is a tree of which only the roots of its complete subtrees are kept, the largest first, as the
// binary digits of its size have it. Leaves can be added, and the root be had at each size.
type frontier struct {
	size  uint64
	roots []seal.Hash
}

// frontierAt reads the frontier of the tree's first size leaves.
func frontierAt(size uint64, r tlog.HashReader) (frontier, error) {
	var indexes []int64
	done := uint64(0)
	for level := bits.Len64(size) - 1; level >= 0; level-- {
		if size&(1<<level) != 0 {
			indexes = append(indexes, tlog.StoredHashIndex(level, int64(done>>level)))
			done += 1 << level
		}
	}
	if len(indexes) == 0 {
		return frontier{}, nil
	}
	roots, err := r.ReadHashes(indexes)
	if err != nil {
		return frontier{}, fmt.Errorf("reading the sealed tree at %d leaves: %w", size, err)
	}
	return frontier{size, roots}, nil
}

// valid reports whether there are as many roots as the size asks for.
func (f frontier) valid() bool { return len(f.roots) == bits.OnesCount64(f.size) }

// add adds a leaf.
func (f *frontier) add(leaf seal.Hash) {
	f.roots = append(f.roots, leaf)
	for n := f.size; n&1 == 1; n >>= 1 {
		last := len(f.roots) - 1
		f.roots[last-1] = tlog.NodeHash(f.roots[last-1], f.roots[last])
		f.roots = f.roots[:last]
	}
	f.size++
}

// root is the root of the tree; of none it is the hash of nothing.
func (f frontier) root() seal.Hash {
	if len(f.roots) == 0 {
		root, _ := tlog.TreeHash(0, nil)
		return root
	}
	root := f.roots[len(f.roots)-1]
	for i := len(f.roots) - 2; i >= 0; i-- {
		root = tlog.NodeHash(f.roots[i], root)
	}
	return root
}
