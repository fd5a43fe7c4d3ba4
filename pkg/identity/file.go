package identity

import (
	"os"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// lookEvery is how old what is known of a file may be before it is looked at again.
	lookEvery = 500 * time.Millisecond
	// lookAgain is how soon after a look another one is worth its cost, however urgent.
	lookAgain = 20 * time.Millisecond
)

// file is what a key file says, read again when it has changed, so that keys rotate in a process that
// runs. A change that cannot be read (a file half copied) leaves what was known, and is tried again. It
// is safe for concurrent use, and looks at the file only when it is asked.
type file[T any] struct {
	path  string
	parse func(path string) (T, error)

	current atomic.Pointer[T]
	looked  atomic.Int64 // monotonic nanoseconds since began, of the last look
	began   time.Time

	mu    sync.Mutex
	stamp os.FileInfo
	err   error // why the file as it is now could not be read
}

func openFile[T any](path string, parse func(path string) (T, error)) (*file[T], error) {
	f := &file[T]{path: path, parse: parse, began: time.Now()}
	f.stamp, _ = os.Stat(path) // where there is none, parse says so
	value, err := parse(path)
	if err != nil {
		return nil, err
	}
	f.current.Store(&value)
	return f, nil
}

// get returns what the file says, at most lookEvery ago.
func (f *file[T]) get() *T {
	if f.age() > lookEvery {
		f.look()
	}
	return f.current.Load()
}

// fresh returns what the file says now. err is why that could not be read.
func (f *file[T]) fresh() (value *T, err error) {
	if f.age() > lookAgain {
		f.look()
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.current.Load(), f.err
}

func (f *file[T]) age() time.Duration {
	return time.Since(f.began) - time.Duration(f.looked.Load())
}

func (f *file[T]) look() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.age() <= lookAgain {
		return // another has just looked
	}
	defer func() { f.looked.Store(int64(time.Since(f.began))) }()
	stamp, err := os.Stat(f.path)
	if err != nil {
		f.err = err
		return
	}
	if f.err == nil && sameFile(f.stamp, stamp) {
		return
	}
	value, err := f.parse(f.path)
	if f.err = err; err == nil {
		f.current.Store(&value)
		f.stamp = stamp // of before it was read: a change meanwhile is seen the next time
	}
}

func sameFile(a, b os.FileInfo) bool {
	return a != nil && os.SameFile(a, b) && a.ModTime().Equal(b.ModTime()) && a.Size() == b.Size()
}
