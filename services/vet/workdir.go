package vet

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

const (
	processPrefix = "process-"
	lockFile      = "lock"
)

// openWork makes this process's folder in work and removes those of processes that died. Several
// processes may share work: each holds a lock in its own folder while it lives.
func openWork(work string) (dir string, done func(), err error) {
	if err := os.MkdirAll(work, 0o700); err != nil {
		return "", nil, fmt.Errorf("making the folder for images: %w", err)
	}
	left, err := filepath.Glob(filepath.Join(work, processPrefix+"*"))
	if err != nil {
		return "", nil, fmt.Errorf("clearing the folder for images: %w", err)
	}
	for _, old := range left {
		removeDead(old)
	}
	if dir, err = os.MkdirTemp(work, processPrefix); err != nil {
		return "", nil, fmt.Errorf("making the folder for images: %w", err)
	}
	lock, err := os.OpenFile(filepath.Join(dir, lockFile), os.O_CREATE|os.O_RDWR, 0o600)
	if err == nil {
		err = syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	}
	if err != nil {
		return "", nil, fmt.Errorf("locking the folder for images: %w", err)
	}
	return dir, func() {
		os.RemoveAll(dir)
		lock.Close()
	}, nil
}

// removeDead removes a folder whose process no longer holds its lock.
func removeDead(dir string) {
	lock, err := os.OpenFile(filepath.Join(dir, lockFile), os.O_RDWR, 0)
	if err != nil {
		if info, statErr := os.Stat(dir); statErr == nil && time.Since(info.ModTime()) > time.Minute {
			os.RemoveAll(dir) // not one that is just being made
		}
		return
	}
	defer lock.Close()
	if syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) == nil {
		os.RemoveAll(dir)
	}
}

// isPlatform reports whether s names an operating system and an architecture.
func isPlatform(s string) bool {
	p, err := v1.ParsePlatform(s)
	return err == nil && p.OS != "" && p.Architecture != ""
}
