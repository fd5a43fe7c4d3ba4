package ledgertest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
	"unsafe"
)

// disk is a file system of the server's own, ext4 in a file, that can lose its power. It is mounted in the mount
// namespace of the server alone, so that it is gone with the server, whatever becomes of the test.
type disk struct{ image, folder string }

// diskSize is what the streams' limits ask for, and more. The file is sparse.
const diskSize = 4 << 30

// mountOptions leave ext4 nothing that saves what a program did not sync: no flush when a file is replaced or cut off.
const mountOptions = "loop,noauto_da_alloc,noinit_itable"

// OnDisk runs the server as Separate does, with its store on a disk that CutPower can take the power from. It needs root
// and a kernel with ext4 and loop devices.
func OnDisk() Option {
	return func(l *Ledger) {
		l.begin = l.startProcess
		l.disk = &disk{image: filepath.Join(l.dir, "disk"), folder: filepath.Join(l.dir, "mounted")}
		if err := l.disk.make(); err != nil {
			l.t.Fatalf("making a disk whose power can be cut, which needs root, ext4 and loop devices: %v", err)
		}
	}
}

func (d *disk) make() error {
	if err := os.Mkdir(d.folder, 0o700); err != nil {
		return err
	}
	image, err := os.Create(d.image)
	if err != nil {
		return err
	}
	defer image.Close()
	if err := image.Truncate(diskSize); err != nil {
		return err
	}
	out, err := exec.Command("mkfs.ext4", "-q", "-F", "-N", "8192", "-E", "lazy_itable_init=1,lazy_journal_init=1", d.image).CombinedOutput()
	if err != nil {
		return fmt.Errorf("mkfs.ext4: %w\n%s", err, out)
	}
	return nil
}

// within is a command that mounts the disk and then becomes the given one.
func (d *disk) within(command ...string) *exec.Cmd {
	script := fmt.Sprintf(`mount -o %s "$1" "$2" && shift 2 && exec "$@"`, mountOptions)
	return exec.Command("unshare", append([]string{"--mount", "--propagation", "private", "sh", "-c", script, "sh", d.image, d.folder}, command...)...)
}

// ext4's request to stop at once, and the flag that says that not even the journal is written any more.
const (
	ext4Shutdown   = 0x8004587d // EXT4_IOC_SHUTDOWN
	ext4NoLogFlush = 2          // EXT4_GOING_FLAGS_NOLOGFLUSH
)

// CutPower ends the server as a power cut does: at once, and what it wrote and did not sync is gone. Restart brings the
// power back.
func (l *Ledger) CutPower() {
	l.t.Helper()
	if err := l.disk.cut(l.server.(*process)); err != nil {
		l.t.Fatalf("cutting the power: %v", err)
	}
	l.server = nil
}

func (d *disk) cut(p *process) error {
	inside := fmt.Sprintf("/proc/%d", p.command.Process.Pid)
	device, err := d.device(inside + "/mountinfo")
	if err != nil {
		return err
	}
	folder, err := os.Open(inside + "/root" + d.folder)
	if err != nil {
		return err
	}
	p.kill()
	flags := uint32(ext4NoLogFlush)
	_, _, failed := syscall.Syscall(syscall.SYS_IOCTL, folder.Fd(), ext4Shutdown, uintptr(unsafe.Pointer(&flags)))
	if err := folder.Close(); err != nil {
		return err
	}
	if failed != 0 {
		return fmt.Errorf("stopping ext4: %w", failed)
	}
	// The kernel lets go of the device when the last of the file system is gone; before that a mount would find it dead.
	backing := filepath.Join("/sys/block", filepath.Base(device), "loop", "backing_file")
	for end := time.Now().Add(20 * time.Second); ; <-time.After(time.Millisecond) {
		text, err := os.ReadFile(backing)
		if err != nil || strings.TrimSpace(string(text)) != d.image {
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("%s still holds %s 20 s after its file system was left", device, d.image)
		}
	}
}

// device finds what is mounted, in a process's mountinfo.
func (d *disk) device(mountinfo string) (string, error) {
	text, err := os.ReadFile(mountinfo)
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(text)) {
		at, source, found := strings.Cut(line, " - ")
		if f := strings.Fields(at); found && len(f) > 4 && f[4] == d.folder {
			return strings.Fields(source)[1], nil
		}
	}
	return "", fmt.Errorf("nothing is mounted at %s", d.folder)
}
