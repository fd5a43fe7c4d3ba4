package fold

import (
	"encoding/json"
	"fmt"
	"iter"
	"reflect"
	"slices"
	"strings"

	"towpath.dev/events"
)

// Runs are the runs of an app, numbered from 1. Those that are settled, but for the newest, are kept as their bytes:
// they are a quarter as large and nothing that a garbage collector has to look through. Whoever asks for one gets a
// copy of its own, with all that was known of it. Its zero value is empty.
type Runs struct{ sequence[Run, *Run] }

// With returns the runs with more of them, or with others in the places of those with their numbers.
func (r Runs) With(runs ...*Run) Runs {
	for _, run := range runs {
		r.set(run, false)
	}
	return r
}

// heads returns what the bytes of a run begin with, newest first.
func (r Runs) heads() iter.Seq[runHead] {
	return func(yield func(runHead) bool) {
		for n := r.count; n > 0; n-- {
			var head runHead
			if run, ok := r.asIs(n); ok {
				head = runHead{run.App, run.N, run.ChainID, run.StartEvent, run.Start}
			} else {
				unpack(r.bytes(n), &head)
			}
			if !yield(head) {
				return
			}
		}
	}
}

// runHead is how a run was started. Its fields are the first of Run, so that the bytes of a run begin with those of it.
type runHead struct {
	App        events.Slug
	N          int
	ChainID    string
	StartEvent string
	Start      events.RunStart
}

// Slots are the slots of an environment, numbered from 1. All but the two newest are kept as Runs keeps settled runs.
// Its zero value is empty.
type Slots struct{ sequence[Slot, *Slot] }

// With returns the slots with more of them, or with others in the places of those with their numbers.
func (s Slots) With(slots ...*Slot) Slots {
	for _, slot := range slots {
		s.set(slot, false)
	}
	return s
}

// element is what a sequence can hold.
type element[T any] interface {
	*T
	number() int
	// light returns it without what all have in common.
	light() *T
	// complete adds what light left out. It reports false where that is not known, or where it is not whole.
	complete(*definitions) bool
}

func (r *Run) number() int { return r.N }

// light leaves out the definition's text, which most runs of an app share.
func (r *Run) light() *Run {
	light := *r
	light.Start.Definition = nil
	return &light
}

func (r *Run) complete(known *definitions) bool {
	d, ok := known.get(r.Start.DefinitionDigest)
	r.Definition, r.Start.Definition = d.Definition, d.text
	return ok && !slices.Contains(r.Envs, nil)
}

func (s *Slot) number() int                { return s.N }
func (s *Slot) light() *Slot               { return s }
func (s *Slot) complete(*definitions) bool { return true }

// sequence is a list of elements that are numbered from 1 and never taken away. A copy of it stays as it is, whatever
// becomes of the other.
type sequence[T any, P element[T]] struct {
	count       int
	open        []P        // those that are kept as they are, by number
	packed      [][]string // the others' bytes, in blocks; "" where an element is open
	definitions *definitions
}

// blockSize is how many elements' bytes a block holds: a change copies one block, and the list of blocks.
const blockSize = 64

// Len is how many there are.
func (s sequence[T, P]) Len() int { return s.count }

// at returns element n, or nil.
func (s sequence[T, P]) at(n int) P {
	if n < 1 || n > s.count {
		return nil
	}
	if p, ok := s.asIs(n); ok {
		return p
	}
	p := P(new(T))
	unpack(s.bytes(n), p)
	p.complete(s.definitions)
	return p
}

// All returns the elements, oldest first.
func (s sequence[T, P]) All() iter.Seq[P] {
	return func(yield func(P) bool) {
		for n := 1; n <= s.count && yield(s.at(n)); n++ {
		}
	}
}

// Backward returns the elements, newest first.
func (s sequence[T, P]) Backward() iter.Seq[P] {
	return func(yield func(P) bool) {
		for n := s.count; n > 0 && yield(s.at(n)); n-- {
		}
	}
}

// MarshalJSON writes the elements as a JSON array.
func (s sequence[T, P]) MarshalJSON() ([]byte, error) {
	return json.Marshal(slices.AppendSeq([]P{}, s.All()))
}

func (s sequence[T, P]) find(n int) (at int, open bool) {
	return slices.BinarySearchFunc(s.open, n, func(p P, n int) int { return p.number() - n })
}

func (s sequence[T, P]) asIs(n int) (P, bool) {
	if at, open := s.find(n); open {
		return s.open[at], true
	}
	return nil, false
}

func (s sequence[T, P]) bytes(n int) string { return s.packed[(n-1)/blockSize][(n-1)%blockSize] }

// set puts an element in its place, as it is or as its bytes. What copies of the sequence have in common is copied
// before it changes.
func (s *sequence[T, P]) set(p P, asBytes bool) {
	n := p.number()
	at, open := s.find(n)
	switch {
	case open && asBytes:
		s.open = slices.Delete(slices.Clone(s.open), at, at+1)
	case open && s.open[at] != p:
		s.open = slices.Clone(s.open)
		s.open[at] = p
	case !open && !asBytes:
		s.open = slices.Insert(slices.Clone(s.open), at, p)
		if n <= s.count {
			s.put(n, "")
		}
	}
	if asBytes {
		s.put(n, pack(p.light()))
	}
	s.count = max(s.count, n)
}

// put keeps an element's bytes.
func (s *sequence[T, P]) put(n int, data string) {
	block := (n - 1) / blockSize
	s.packed = slices.Clone(s.packed)
	for len(s.packed) <= block {
		s.packed = append(s.packed, nil)
	}
	own := make([]string, blockSize)
	copy(own, s.packed[block])
	own[(n-1)%blockSize] = data
	s.packed[block] = own
}

// check says what is wrong with a sequence that was read, and completes it by what is known.
func (s *sequence[T, P]) check(known *definitions) error {
	s.definitions = known
	for n := 1; n <= s.count; n++ {
		p, open := s.asIs(n)
		if !open {
			p = new(T)
			r := unpack(s.bytes(n), p)
			if r.err != nil {
				return fmt.Errorf("number %d: %w", n, r.err)
			}
			open = r.data == "" && p.number() == n
		}
		if !open || !p.complete(known) {
			return fmt.Errorf("number %d: %w: it is not whole", n, errNoState)
		}
	}
	return nil
}

// write is the form of a sequence: its length, and for each element whether it is kept as its bytes, and those, or
// its own form.
func (s sequence[T, P]) write(w *writer) {
	w.uint(uint64(s.count))
	for n := 1; n <= s.count; n++ {
		p, open := s.asIs(n)
		if w.bool(!open); open {
			codecs()[reflect.TypeFor[T]()].write(w, reflect.ValueOf(p.light()).Elem())
		} else {
			data := s.bytes(n)
			w.uint(uint64(len(data)))
			w.data = append(w.data, data...)
		}
	}
}

// read reads what write wrote.
func (s *sequence[T, P]) read(r *reader) {
	count := r.uint()
	if r.err != nil || count > uint64(len(r.data)) {
		r.fail("%d elements do not fit", count)
		return
	}
	for n := 1; n <= int(count) && r.err == nil; n++ {
		if !r.bool() {
			p := P(new(T))
			if codecs()[reflect.TypeFor[T]()].read(r, reflect.ValueOf(p).Elem()); p.number() != n {
				r.fail("number %d is %d", n, p.number())
			}
			s.open = append(s.open, p)
			continue
		}
		size, block := r.uint(), (n-1)/blockSize
		if size > uint64(len(r.data)) {
			r.fail("%d bytes are cut off", size)
			return
		}
		for len(s.packed) <= block {
			s.packed = append(s.packed, nil)
		}
		if s.packed[block] == nil {
			s.packed[block] = make([]string, blockSize)
		}
		s.packed[block][(n-1)%blockSize] = strings.Clone(r.data[:size])
		r.data = r.data[size:]
	}
	s.count = int(count)
}

func (s sequence[T, P]) elements() reflect.Type { return reflect.TypeFor[T]() }

func (s sequence[T, P]) element(n int) reflect.Value { return reflect.ValueOf(s.at(n)) }
