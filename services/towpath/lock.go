package towpath

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// InUseError says that another process runs on a data folder.
type InUseError struct {
	Data string
	PID  int // 0: not known
}

func (e *InUseError) Error() string {
	return fmt.Sprintf("the data folder %s is in use: %s", e.Data, e.Why())
}

// Why says who uses it.
func (e *InUseError) Why() string {
	if e.PID == 0 {
		return "another towpath up is running on it"
	}
	return fmt.Sprintf("another towpath up, process %d, is running on it", e.PID)
}

// Held reports whether a process has the data folder now.
func Held(data string) (bool, error) {
	f, err := os.OpenFile(Config{Data: data}.lockFile(), os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("looking at the lock of %s: %w", data, err)
	}
	defer f.Close()
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_SH|syscall.LOCK_NB)
	return errors.Is(err, syscall.EWOULDBLOCK), nil
}

// lock takes a data folder for this process until release is called or the process ends, however it
// ends. The error is an *InUseError where another process has it.
func lock(data, name string) (release func(), err error) {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("locking the data folder %s: %w", data, err)
	}
	if err := take(f); err != nil {
		defer f.Close()
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("locking the data folder %s: %w", data, err)
		}
		text, _ := io.ReadAll(io.LimitReader(f, 32))
		pid, _ := strconv.Atoi(strings.TrimSpace(string(text)))
		return nil, &InUseError{Data: data, PID: pid}
	}
	// The id is for whoever is refused; the lock itself is the kernel's.
	err = f.Truncate(0)
	if err == nil {
		_, err = f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("locking the data folder %s: %w", data, err)
	}
	return func() { f.Close() }, nil
}

// take locks the file. Held looks at the lock for an instant, which is waited out.
func take(f *os.File) (err error) {
	for range 5 {
		if err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); !errors.Is(err, syscall.EWOULDBLOCK) {
			return err
		}
		time.Sleep(10 * time.Millisecond)
	}
	return err
}
