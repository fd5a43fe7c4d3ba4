package deploy

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"syscall"

	"towpath.dev/pkg/discovery"
	"towpath.dev/pkg/engine"
	"towpath.dev/pkg/settings"
	"towpath.dev/pkg/wholefile"
)

// secretsTarget is where containers find their secrets, one file for each key.
const secretsTarget = settings.FilesFolder

// volumeSize bounds the secrets of one slot on a remote engine, bytes.
const volumeSize = 4 << 20

// memoryFolder returns the folder for secrets of local engines, or "" where there is no tmpfs in which
// this process may make one.
func memoryFolder(cfg Config) string {
	if cfg.Memory != "" {
		return cfg.Memory
	}
	for _, folder := range []string{"/run", "/dev/shm"} {
		const writeAndSearch = 0x2 | 0x1 // access(2)
		if inMemory(folder) && syscall.Access(folder, writeAndSearch) == nil {
			return filepath.Join(folder, "towpath-"+cfg.Install)
		}
	}
	return ""
}

// inMemory reports whether a folder is on tmpfs.
func inMemory(folder string) bool {
	const tmpfsMagic = 0x01021994 // statfs(2)
	var fs syscall.Statfs_t
	return syscall.Statfs(folder, &fs) == nil && int64(fs.Type) == tmpfsMagic
}

// secretsFolder is where the secrets of one slot are on this machine.
func (d *Deployer) secretsFolder(p discovery.Place, slot int) string {
	return filepath.Join(d.memory, string(p.Env), string(p.App), strconv.Itoa(slot))
}

// secretsVolume is where the secrets of one slot are on a remote engine.
func (d *Deployer) secretsVolume(p discovery.Place, slot int) string {
	return d.name(p, slot, "secrets")
}

// placeSecrets puts the secrets of the slot into the memory of the engine's machine and returns what
// containers mount. Doing it again restores what a restart of that machine or engine has taken away; emptied says that
// it had, for what is containers' own.
func (d *Deployer) placeSecrets(ctx context.Context, e *engine.Engine, s Spec) (mounts []engine.Mount, emptied bool, err error) {
	if len(s.files()) == 0 && s.Own == nil {
		return nil, false, nil
	}
	if e.Local() && d.memory != "" {
		folder := d.secretsFolder(s.Place, s.Slot)
		sees, err := d.sees(ctx, e, s, folder)
		if err != nil {
			return nil, false, err
		}
		if sees {
			return []engine.Mount{{Folder: folder, Target: secretsTarget}}, false, nil
		}
	}
	if emptied, err = d.fillVolume(ctx, e, s); err != nil {
		return nil, false, err
	}
	return []engine.Mount{{Volume: d.secretsVolume(s.Place, s.Slot), Target: secretsTarget}}, emptied, nil
}

// sees writes the secrets to a folder of this machine, and reports whether the engine sees that folder. It
// does not where this process is in a container and the engine outside: nothing is left there then.
func (d *Deployer) sees(ctx context.Context, e *engine.Engine, s Spec, folder string) (bool, error) {
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return false, fmt.Errorf("making the folder for secrets of %s: %w", s.Place, err)
	}
	answer, known := d.seen.Load(e.Host())
	if !known {
		var err error
		if answer, err = d.trySeeing(ctx, e, s, folder); err != nil {
			return false, err
		}
		d.seen.Store(e.Host(), answer)
	}
	if !answer.(bool) {
		return false, os.RemoveAll(folder)
	}
	return true, writeSecrets(folder, s.files())
}

// trySeeing makes a container that mounts the folder and never runs: nothing else tells whether the
// engine sees it.
func (d *Deployer) trySeeing(ctx context.Context, e *engine.Engine, s Spec, folder string) (bool, error) {
	c := engine.Container{
		Name: d.name(s.Place, s.Slot, "mount-"+rand.Text()), Image: s.Repository + "@" + s.Digest, Command: []string{"/"},
		Labels: d.labels(s, roleSecrets), Mounts: []engine.Mount{{Folder: folder, Target: secretsTarget}},
	}
	id, err := e.Create(ctx, c)
	if errors.Is(err, engine.ErrNoSource) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return true, e.Remove(ctx, id)
}

// writeSecrets makes folder hold exactly these files, besides what is containers' own, which any user of a container
// may read. The folders above are closed to everybody else on this machine.
func writeSecrets(folder string, secrets map[string]settings.Secret) error {
	if !inMemory(folder) {
		return fmt.Errorf("writing secrets to %s: it is not in memory (tmpfs)", folder)
	}
	if err := os.Chmod(folder, 0o755); err != nil {
		return fmt.Errorf("writing secrets: %w", err)
	}
	present, err := os.ReadDir(folder)
	if err != nil {
		return fmt.Errorf("writing secrets: %w", err)
	}
	for _, file := range present {
		if _, wanted := secrets[file.Name()]; !wanted && file.Name() != ownFolder {
			if err := os.RemoveAll(filepath.Join(folder, file.Name())); err != nil {
				return fmt.Errorf("writing secrets: %w", err)
			}
		}
	}
	for _, key := range secretKeys(secrets) {
		if err := writeSecret(filepath.Join(folder, key), secrets[key].Reveal()); err != nil {
			return fmt.Errorf("writing secret %s: %w", key, err)
		}
	}
	return nil
}

// writeSecret replaces a file at once: a container that reads it meanwhile sees the one or the other whole.
func writeSecret(file, value string) error {
	if old, err := os.ReadFile(file); err == nil && string(old) == value {
		return nil
	}
	return wholefile.Write(file, []byte(value), 0o444)
}

// fillVolume puts the secrets into a volume in the memory of the engine's machine. Such a volume has
// content while a container that mounts it runs, so one is started that does nothing else. emptied says that none ran.
func (d *Deployer) fillVolume(ctx context.Context, e *engine.Engine, s Spec) (emptied bool, err error) {
	image, err := keeperImage(ctx, e)
	if err != nil {
		return false, err
	}
	labels := d.labels(s, roleSecrets)
	volume := d.secretsVolume(s.Place, s.Slot)
	if err := e.EnsureMemoryVolume(ctx, volume, volumeSize, labels); err != nil {
		return false, err
	}
	state, err := e.Inspect(ctx, volume)
	if err != nil && !errors.Is(err, engine.ErrNotFound) {
		return false, err
	}
	emptied = !state.Running()
	keeper := engine.Container{
		Name: volume, Image: image, Labels: labels,
		StopSignal: "SIGKILL", // as process 1 it would not notice another
		Mounts:     []engine.Mount{{Volume: volume, Target: secretsTarget, Writable: true}},
	}
	id, err := e.Create(ctx, keeper)
	if errors.Is(err, engine.ErrNameTaken) {
		id, err = keeper.Name, nil
	}
	if err == nil {
		err = e.Start(ctx, id)
	}
	if err != nil {
		return emptied, err
	}
	files, err := secretsTar(s.files())
	if err != nil {
		return emptied, err
	}
	return emptied, e.CopyTo(ctx, id, secretsTarget, files)
}

func secretsTar(secrets map[string]settings.Secret, folders ...string) (*bytes.Buffer, error) {
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, name := range folders {
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: name + "/", Mode: 0o755}); err != nil {
			return nil, fmt.Errorf("packing secrets: %w", err)
		}
	}
	for _, key := range secretKeys(secrets) {
		value := secrets[key].Reveal()
		if err := w.WriteHeader(&tar.Header{Name: key, Mode: 0o444, Size: int64(len(value))}); err != nil {
			return nil, fmt.Errorf("packing secret %s: %w", key, err)
		}
		if _, err := w.Write([]byte(value)); err != nil {
			return nil, fmt.Errorf("packing secret %s: %w", key, err)
		}
	}
	return &out, w.Close()
}

// removeSecrets takes away the secrets of the slots of a place up to upTo but those to be kept.
func (d *Deployer) removeSecrets(ctx context.Context, e *engine.Engine, p discovery.Place, upTo int, keep map[int]bool) error {
	volumes, err := e.Volumes(ctx, d.placeLabels(p))
	if err != nil {
		return err
	}
	for _, v := range volumes {
		if slot := slotOf(v.Labels); slot > upTo || keep[slot] {
			continue
		}
		if err := e.RemoveVolume(ctx, v.Name); err != nil {
			return err
		}
	}
	if d.memory == "" {
		return nil
	}
	app := filepath.Join(d.memory, string(p.Env), string(p.App))
	folders, err := os.ReadDir(app)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("removing secrets of %s: %w", p, err)
	}
	for _, folder := range folders {
		if slot, err := strconv.Atoi(folder.Name()); err == nil && (slot > upTo || keep[slot]) {
			continue
		}
		if err := os.RemoveAll(filepath.Join(app, folder.Name())); err != nil {
			return fmt.Errorf("removing secrets of %s: %w", p, err)
		}
	}
	// The folders above go with their last one; what is not empty stays.
	for _, folder := range []string{app, filepath.Dir(app), d.memory} {
		os.Remove(folder)
	}
	return nil
}
