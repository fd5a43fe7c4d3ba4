package deploy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"towpath.dev/pkg/discovery"
	"towpath.dev/pkg/engine"
	"towpath.dev/pkg/settings"
)

// ownFolder is the folder, among the secrets of a slot, of what is one container's own.
const ownFolder = "own"

// equip gives a container that is about to be made what is its own. what follows the slot in its name.
func (d *Deployer) equip(ctx context.Context, st *stage, c *engine.Container, what string) error {
	if st.spec.Own == nil {
		return nil
	}
	given, err := d.issue(ctx, st.engine, st.spec.Own, owner{st.spec.Place, st.spec.Slot, what}, nil)
	if err != nil {
		return err
	}
	for key, value := range given.Env {
		if _, theirs := c.Env[key]; !theirs {
			c.Env[key] = value
		}
	}
	return nil
}

// Refresh gives those of a place's instances that own issued something to what they need for their next start.
func (d *Deployer) Refresh(ctx context.Context, p discovery.Place, own settings.Issuer) error {
	entry, err := d.deps.Table.Get(ctx, p)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	e, err := d.deps.Engines.Environment(ctx, string(p.Env))
	if err != nil {
		return err
	}
	var errs []error
	for _, i := range entry.Instances {
		state, err := e.Inspect(ctx, i.ID)
		if errors.Is(err, engine.ErrNotFound) {
			continue
		}
		if err == nil {
			err = d.refresh(ctx, e, own, p, state, false)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// refresh gives a container that is there what it needs for its next start. lost says that what it has may be gone.
func (d *Deployer) refresh(ctx context.Context, e *engine.Engine, own settings.Issuer, p discovery.Place, state engine.State, lost bool) error {
	slot := slotOf(state.Labels)
	what, ours := strings.CutPrefix(state.Name, d.name(p, slot, ""))
	if own == nil || !ours {
		return nil
	}
	_, err := d.issue(ctx, e, own, owner{p, slot, what}, &running{lost: lost, started: func(ctx context.Context) (time.Time, error) {
		now, err := e.Inspect(ctx, state.ID)
		return now.Started, err
	}})
	return err
}

// owner names a container as its slot knows it.
type owner struct {
	place discovery.Place
	slot  int
	what  string
}

// running is what is known of a container that was made already.
type running struct {
	lost    bool
	started func(context.Context) (time.Time, error)
}

// issue hands a container what own has for its next start, and says what it is to be told.
func (d *Deployer) issue(ctx context.Context, e *engine.Engine, own settings.Issuer, o owner, r *running) (settings.Grant, error) {
	h := settings.Holder{Install: d.cfg.Install, Env: o.place.Env, App: o.place.App, Slot: o.slot}
	c := settings.Container{Name: o.what, Folder: settings.OwnFolder + "/" + o.what}
	folder := d.secretsFolder(o.place, o.slot)
	_, err := os.Stat(folder)
	local := e.Local() && d.memory != "" && err == nil
	if r != nil {
		_, err := os.Stat(filepath.Join(folder, ownFolder, o.what))
		c.Started, c.Lost = r.started, r.lost || local && err != nil
	}
	given, err := own.Issue(ctx, h, c)
	if err != nil || len(given.Files) == 0 {
		return given, err
	}
	if local {
		err = writeOwn(folder, o.what, given.Files)
	} else {
		var files *bytes.Buffer
		if files, err = ownTar(o.what, given.Files); err == nil {
			err = e.CopyTo(ctx, d.secretsVolume(o.place, o.slot), secretsTarget, files)
		}
	}
	if err != nil {
		return given, fmt.Errorf("giving %s what is its own: %w", d.name(o.place, o.slot, o.what), err)
	}
	return given, own.Issued(ctx, h, c)
}

// writeOwn puts the files into the container's folder among the secrets, which any user of a container may read.
func writeOwn(folder, what string, files map[string]settings.Secret) error {
	if !inMemory(folder) {
		return fmt.Errorf("%s is not in memory (tmpfs)", folder)
	}
	for _, name := range []string{ownFolder, what} {
		folder = filepath.Join(folder, name)
		if err := os.MkdirAll(folder, 0o755); err != nil {
			return err
		}
		if err := os.Chmod(folder, 0o755); err != nil {
			return err
		}
	}
	for _, name := range secretKeys(files) {
		if err := writeSecret(filepath.Join(folder, name), files[name].Reveal()); err != nil {
			return err
		}
	}
	return nil
}

func ownTar(what string, files map[string]settings.Secret) (*bytes.Buffer, error) {
	named := map[string]settings.Secret{}
	for name, value := range files {
		named[ownFolder+"/"+what+"/"+name] = value
	}
	return secretsTar(named, ownFolder, ownFolder+"/"+what)
}
