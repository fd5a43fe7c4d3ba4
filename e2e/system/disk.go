package system

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// Disk is a small file system of its own, to be filled.
type Disk struct {
	Folder string
}

// MountDisk mounts a file system of the given size ("64m") at the folder. It takes root.
func MountDisk(folder, size string) (*Disk, error) {
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return nil, err
	}
	if err := syscall.Mount("tmpfs", folder, "tmpfs", 0, "size="+size+",mode=0755"); err != nil {
		return nil, fmt.Errorf("mounting a file system of %s at %s: %w", size, folder, err)
	}
	return &Disk{Folder: folder}, nil
}

func (d *Disk) ballast() string { return filepath.Join(d.Folder, "ballast") }

// Fill writes until nothing more fits.
func (d *Disk) Fill() error {
	file, err := os.OpenFile(d.ballast(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer file.Close()
	end := int64(0)
	for size := int64(256 << 20); size >= 1; size /= 2 {
		for {
			err := syscall.Fallocate(int(file.Fd()), 0, end, size)
			if errors.Is(err, syscall.ENOSPC) {
				break
			}
			if err != nil {
				return fmt.Errorf("filling %s: %w", d.Folder, err)
			}
			end += size
		}
	}
	return nil
}

// Free takes away what Fill wrote.
func (d *Disk) Free() error { return os.Remove(d.ballast()) }

// Close unmounts the file system with everything in it.
func (d *Disk) Close() error {
	if err := syscall.Unmount(d.Folder, syscall.MNT_DETACH); err != nil {
		return fmt.Errorf("unmounting %s: %w", d.Folder, err)
	}
	return nil
}
