package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"filippo.io/age"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"towpath.dev/events"
	"towpath.dev/pkg/ledger"
	"towpath.dev/pkg/policy"
	"towpath.dev/pkg/seal"
	"towpath.dev/services/towpath"
	"towpath.dev/services/towpath/backup"
	"towpath.dev/services/towpath/client"
	"towpath.dev/services/towpath/screen"
)

// passphraseVariable may hold the passphrase of a backup.
const passphraseVariable = "TOWPATH_PASSPHRASE"

// patientBus bounds how long a bus that does not answer is waited for.
const patientBus = 30 * time.Second

func (p *program) backupCommand() *cobra.Command {
	var noKeys, clear, overwrite, asJSON bool
	var url, keys, repositories, registry, passphraseFile string
	var recipients []string
	c := &cobra.Command{
		Use: "backup FILE | FOLDER", Short: "Copy the whole installation into one file, while it runs",
		Long: `Copy the whole installation into one file, while it runs: the ledger with its sequences and times,
settings, secrets (encrypted, as they are kept), actors, the output of stages, images, repositories,
platform.yaml and the keys. Whoever can read a backup with keys can act as any service, so it is encrypted (age):
for a passphrase, which is asked for, or taken from --passphrase-file or ` + passphraseVariable + `; or for those
whose public keys --recipient names (age-keygen makes such keys), which needs no secret on this machine.
--no-keys leaves the keys out; --keys-in-clear writes them into a file that nothing but its mode, 0600, protects.

It appears when it is whole, and never before. It takes the place of no file that is there; --overwrite lets it
take that of another backup, and of nothing else. ` + "`towpath restore`" + ` checks every byte.

Where services run apart, --bus, --keys, --repositories (the gateway's folder git) and --registry (the
registry's folder, where it is on this machine) say what to copy; a registry elsewhere has its own backup,
to be taken after this one.`,
		Example: examples("towpath backup /backups/", "towpath backup monday.towpath --recipient age1…",
			"towpath backup /backups/ --passphrase-file /etc/towpath/backup.passphrase",
			"towpath backup /backups/ --bus nats://bus:4222 --keys /etc/towpath/keys --repositories /var/lib/towpath/git"),
		Args: arguments(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, args []string) error {
			file := backupFile(args[0])
			if err := backup.Free(file, overwrite); err != nil { // before anybody types a passphrase
				return backupError(file, err)
			}
			source := backup.Source{Keys: keys, Repositories: repositories, Registry: registry, Files: map[string]string{}}
			open := func(ctx context.Context) (*ledger.Client, func(), error) { return connectOperator(ctx, url, keys) }
			if url == "" {
				data, err := filepath.Abs(p.data)
				if err != nil {
					return err
				}
				source = ofFolder(data)
				open = func(ctx context.Context) (*ledger.Client, func(), error) { return towpath.OpenBus(ctx, data) }
			}
			if noKeys {
				source.Keys = ""
				delete(source.Files, "files/"+client.TokenFile)
			}
			var err error
			if source.Recipients, err = p.recipients(recipients, passphraseFile, clear, source.Keys != ""); err != nil {
				return err
			}
			source.Overwrite = overwrite
			return p.backup(c.Context(), source, open, file, asJSON)
		},
	}
	c.Flags().BoolVar(&noKeys, "no-keys", false, "leave the keys and the first user's token out")
	c.Flags().StringArrayVar(&recipients, "recipient", nil, "age public `key` of who can read it, or a file with such keys")
	c.Flags().StringVar(&passphraseFile, "passphrase-file", "", "`file` whose first line is the passphrase")
	c.Flags().BoolVar(&clear, "keys-in-clear", false, "do not encrypt it")
	c.Flags().BoolVar(&overwrite, "overwrite", false, "replace the file, where it is a backup")
	c.Flags().StringVar(&url, "bus", "", "URL of a bus elsewhere")
	c.Flags().StringVar(&keys, "keys", "", "folder of the keys, with --bus")
	c.Flags().StringVar(&repositories, "repositories", "", "folder of the gateway's repositories, with --bus")
	c.Flags().StringVar(&registry, "registry", "", "folder of the registry, with --bus")
	jsonFlag(c, &asJSON)
	return c
}

// ofFolder is everything in a data folder of `towpath up`.
func ofFolder(data string) backup.Source {
	s := backup.Source{
		Keys: filepath.Join(data, "keys"), Repositories: filepath.Join(data, "git"), Registry: filepath.Join(data, "registry"), Files: map[string]string{},
	}
	for _, name := range []string{policy.FileName, "place.json", client.TokenFile} {
		s.Files["files/"+name] = filepath.Join(data, name)
	}
	return s
}

// backupFile is the file for a backup; in a folder it is named after the time.
func backupFile(name string) string {
	if info, err := os.Stat(name); err == nil && info.IsDir() || strings.HasSuffix(name, string(filepath.Separator)) {
		return filepath.Join(name, "towpath-"+time.Now().UTC().Format("20060102T150405Z")+".backup")
	}
	return name
}

// backupError says what to do where a file is there.
func backupError(file string, err error) error {
	if !errors.Is(err, backup.ErrExists) {
		return err
	}
	return &client.Error{What: "backing up", On: "to " + file, Why: err.Error(), Do: "name another, or a folder; --overwrite replaces a backup", Code: client.CodeFailed}
}

func connectOperator(ctx context.Context, url, keys string) (*ledger.Client, func(), error) {
	if keys == "" {
		return nil, nil, usage("--bus takes --keys, the folder that has the operator's")
	}
	ctx, cancel := context.WithTimeout(ctx, patientBus)
	defer cancel()
	c, err := ledger.Connect(ctx, ledger.Options{URL: url, Service: string(events.Operator), Keys: keys})
	if err != nil {
		return nil, nil, err
	}
	return c, c.Close, nil
}

func (p *program) backup(ctx context.Context, source backup.Source, open func(context.Context) (*ledger.Client, func(), error), file string, asJSON bool) error {
	bus, done, err := open(ctx)
	if err != nil {
		return err
	}
	defer done()
	source.Ledger = bus
	progress := p.copying()
	source.Progress = progress.show
	result, err := backup.Save(ctx, source, file)
	progress.end()
	if err != nil {
		return backupError(file, err)
	}
	if asJSON {
		err = p.printJSON(struct {
			File string `json:"file"`
			backup.Result
		}{file, result})
	} else {
		p.say("%s holds %d events and %d files, %s", screen.Line(file), result.Events, result.Files, size(result.Bytes))
		switch {
		case result.Header.Keys && !result.Encrypted:
			p.say("It holds the keys, in clear: whoever can read it can act as any service. Its mode is 0600; keep it so.")
		case result.Header.Keys:
			p.say("It holds the keys, and is encrypted: keep what opens it elsewhere than on this machine.")
		case !result.Header.Keys:
			p.say("It holds no keys: keep those of the installation elsewhere, a restore needs them.")
		}
		for _, digest := range result.Damaged {
			fmt.Fprintf(p.err.Out, "the registry's blob %s is not what its name says; the backup has it as it is\n", digest)
		}
	}
	if err == nil && len(result.Damaged) > 0 {
		return codeError(exitFailed)
	}
	return err
}

// size is a number of bytes for people.
func size(n int64) string {
	const unit = 1024
	if n < unit {
		return fmt.Sprintf("%d B", n)
	}
	value, suffix := float64(n)/unit, "KiB"
	for _, next := range []string{"MiB", "GiB", "TiB"} {
		if value < unit {
			break
		}
		value, suffix = value/unit, next
	}
	return fmt.Sprintf("%.1f %s", value, suffix)
}

// copying shows on a terminal how far a copy is.
type copying struct {
	p    *program
	last time.Time
}

func (p *program) copying() *copying { return &copying{p: p} }

func (c *copying) show(what string, bytes int64) {
	if c.p.err.Terminal && time.Since(c.last) > 100*time.Millisecond {
		c.last = time.Now()
		fmt.Fprintf(c.p.err.Out, "\r\x1b[K%s  %s", what, size(bytes))
	}
}

func (c *copying) end() {
	if !c.last.IsZero() {
		fmt.Fprint(c.p.err.Out, "\r\x1b[K")
	}
}

// recipients are those who can read a backup: a passphrase or public keys. None, for one in clear.
func (p *program) recipients(named []string, passphraseFile string, clear, keys bool) ([]age.Recipient, error) {
	if clear && (len(named) > 0 || passphraseFile != "") || len(named) > 0 && passphraseFile != "" {
		return nil, usage("a backup is for a passphrase, for recipients, or in clear: name one")
	}
	var all []age.Recipient
	for _, one := range named {
		text := one
		if data, err := os.ReadFile(one); err == nil {
			text = string(data)
		}
		found, err := age.ParseRecipients(strings.NewReader(text))
		if err != nil {
			return nil, usage("--recipient %.60q: %v", one, err)
		}
		all = append(all, found...)
	}
	given := passphraseFile != "" || os.Getenv(passphraseVariable) != ""
	if len(all) > 0 || clear || !keys && !given {
		return all, nil
	}
	text, err := p.passphrase(passphraseFile, "Passphrase of the backup: ", true)
	if err != nil {
		return nil, err
	}
	one, err := age.NewScryptRecipient(text)
	return []age.Recipient{one}, err
}

// identities open an encrypted backup: private keys, or a passphrase that need not be asked for.
func (p *program) identities(identityFile, passphraseFile string) ([]age.Identity, error) {
	if identityFile != "" {
		f, err := os.Open(identityFile)
		if err != nil {
			return nil, fmt.Errorf("reading the identity: %w", err)
		}
		defer f.Close()
		all, err := age.ParseIdentities(f)
		if err != nil {
			return nil, fmt.Errorf("reading the identity %s: %w", identityFile, err)
		}
		return all, nil
	}
	if passphraseFile == "" && os.Getenv(passphraseVariable) == "" {
		return nil, nil
	}
	return p.secretIdentity(passphraseFile)
}

func (p *program) secretIdentity(passphraseFile string) ([]age.Identity, error) {
	text, err := p.passphrase(passphraseFile, "Passphrase of the backup: ", false)
	if err != nil {
		return nil, err
	}
	one, err := age.NewScryptIdentity(text)
	return []age.Identity{one}, err
}

// passphrase is that of the file or of the environment, or is asked for on the terminal: twice where nothing would tell that
// it was mistyped.
func (p *program) passphrase(file, prompt string, twice bool) (string, error) {
	if file != "" {
		data, err := os.ReadFile(file)
		text, _, _ := strings.Cut(string(data), "\n")
		if text = strings.TrimSuffix(text, "\r"); err == nil && text == "" {
			err = errors.New("its first line is empty")
		}
		if err != nil {
			return "", fmt.Errorf("reading the passphrase from %s: %w", file, err)
		}
		return text, nil
	}
	if text := os.Getenv(passphraseVariable); text != "" {
		return text, nil
	}
	if !term.IsTerminal(int(p.in.Fd())) {
		return "", usage("there is no terminal to ask for the passphrase: give --passphrase-file, set %s, or, for a backup, name --recipient or --keys-in-clear", passphraseVariable)
	}
	text, err := p.asked(prompt)
	if err == nil && twice {
		var again string
		if again, err = p.asked("Once more: "); err == nil && again != text {
			err = usage("the two are not the same")
		}
	}
	return text, err
}

func (p *program) asked(prompt string) (string, error) {
	fmt.Fprint(p.err.Out, prompt)
	text, err := term.ReadPassword(int(p.in.Fd()))
	fmt.Fprintln(p.err.Out)
	if err == nil && len(text) == 0 {
		err = errors.New("the passphrase is empty")
	}
	return string(text), err
}

func (p *program) restoreCommand() *cobra.Command {
	var t backup.Target
	var url, checkpoint, identityFile, passphraseFile string
	var asJSON bool
	c := &cobra.Command{
		Use: "restore FILE --data FOLDER", Short: "Bring an installation back from a backup",
		Long: `Bring an installation back from a backup, into a data folder that is absent or empty; then ` + "`towpath up`" + ` goes on
from there. Every byte is checked against the backup's own list and every event's signature against the
keys; a backup that was cut or changed leaves nothing behind. That it was brought back is an event in the
ledger, and in every report.

It is held against the newest checkpoint that somebody else has: the file given with --checkpoint, or the last
one of the witness that the backup's platform.yaml names (--witness and --witness-key name another); the
witness's cosignature is checked. A backup that is older is refused, since what was decided after it would be
forgotten, and so is one where nobody can tell, unless --force and --reason say that it has to be: then that is
recorded as well.

With --bus the streams go to a bus elsewhere, which must not have them yet, and repositories and images into
the data folder, from which they are moved to where their services look.`,
		Example: examples("towpath restore /backups/monday.towpath --data /srv/towpath", "towpath restore monday.towpath --data /srv/towpath --checkpoint checkpoint.txt",
			"towpath restore monday.towpath --data /srv/towpath --force --reason 'the newest backup, and the witness burned as well'"),
		Args: arguments(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, args []string) error {
			if t.Force && t.Reason == "" {
				return usage("--force takes --reason: it is recorded")
			}
			var err error
			if t.Data, err = filepath.Abs(p.data); err != nil {
				return err
			}
			if checkpoint != "" {
				text, err := os.ReadFile(checkpoint)
				if err != nil {
					return fmt.Errorf("reading the checkpoint: %w", err)
				}
				t.Checkpoint = string(text)
			}
			if t.Witness.Key, err = witnessKey(t.Witness.Key); err != nil {
				return err
			}
			if t.Identities, err = p.identities(identityFile, passphraseFile); err != nil {
				return err
			}
			t.URL = url
			return p.restore(c.Context(), args[0], t, asJSON)
		},
	}
	c.Flags().StringVar(&t.Keys, "keys", "", "folder of the installation's keys, where the backup holds none")
	c.Flags().StringVar(&identityFile, "identity", "", "`file` with the age private key of a recipient of the backup")
	c.Flags().StringVar(&passphraseFile, "passphrase-file", "", "`file` whose first line is the passphrase (default: "+passphraseVariable+", or it is asked for)")
	c.Flags().StringVar(&checkpoint, "checkpoint", "", "`file` with the newest checkpoint that was kept elsewhere")
	c.Flags().StringVar(&t.Witness.URL, "witness", "", "`URL` of the witness to ask (default: as the backup's platform.yaml says)")
	c.Flags().StringVar(&t.Witness.Key, "witness-key", "", "`key` of the witness, or a file that holds it")
	c.Flags().BoolVar(&t.Force, "force", false, "bring a backup back that is older than the checkpoint, or where nobody can tell")
	c.Flags().StringVar(&t.Reason, "reason", "", "why; it is recorded")
	c.Flags().StringVar(&url, "bus", "", "URL of a bus elsewhere that gets the streams")
	jsonFlag(c, &asJSON)
	return c
}

func (p *program) restore(ctx context.Context, name string, t backup.Target, asJSON bool) error {
	file, err := os.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return &client.Error{What: "restoring", On: name, Why: "there is no such file", Do: "give a file that towpath backup wrote", Status: 404}
	}
	if err != nil {
		return fmt.Errorf("opening the backup: %w", err)
	}
	defer file.Close()
	progress := p.copying()
	t.Progress = progress.show
	done, err := backup.Restore(ctx, file, t)
	if errors.Is(err, backup.ErrEncrypted) && len(t.Identities) == 0 && term.IsTerminal(int(p.in.Fd())) {
		if t.Identities, err = p.secretIdentity(""); err != nil {
			return err
		}
		if _, err = file.Seek(0, 0); err != nil {
			return err
		}
		done, err = backup.Restore(ctx, file, t)
	}
	progress.end()
	if err != nil {
		return restoreError(name, t, err)
	}
	if asJSON {
		return p.printJSON(done)
	}
	p.say("%s is brought back from the backup of %s: %d events; event %d says so", screen.Line(t.Data), instant(done.Header.Created), done.Events, done.Record)
	if done.Against == "" {
		p.say("It was held against nothing, so nobody can tell whether anything came after that backup; reports say so.")
	} else {
		p.say("It was held against this: %s.", screen.Line(done.Against))
	}
	if done.Older > 0 {
		p.say("The %d events after it are lost, and reports say so. A witness that saw them cosigns nothing more until its\noperator gives it a new start: towpath witness reset", done.Older)
	}
	p.say("→ towpath up --data %s", shellQuote(t.Data))
	return nil
}

// restoreError says what to do about a backup that was not brought back.
func restoreError(name string, t backup.Target, err error) error {
	e := &client.Error{What: "restoring", On: name, Why: err.Error(), Code: client.CodeFailed}
	var older *backup.OlderError
	var uncompared *backup.UncomparedError
	switch {
	case errors.As(err, &older):
		e.Why, e.Status = older.Error(), 403
		e.Do = "restore a newer backup; --force --reason TEXT brings this one back and records it"
	case errors.As(err, &uncompared):
		e.Why, e.Status = uncompared.Error(), 403
		e.Do = "give the newest checkpoint that was kept elsewhere (--checkpoint FILE), or the witness (--witness URL --witness-key KEY); --force --reason TEXT does without, and records it"
	case errors.Is(err, seal.ErrCheckpoint):
		e.Status, e.Do = 403, "give the checkpoint as it was kept, and the key of the witness that cosigned it; nothing was brought back"
	case errors.Is(err, backup.ErrOtherHistory):
		e.Status, e.Do = 403, "find out which of the two was changed; nothing was brought back"
	case errors.Is(err, backup.ErrNoBackup):
		e.Why, e.Status, e.Do = backup.ErrNoBackup.Error(), 404, "give a file that towpath backup wrote; nothing was changed"
	case errors.Is(err, backup.ErrDamaged):
		e.Do = "take another backup; nothing was changed"
	case errors.Is(err, backup.ErrInUse):
		e.Do = "give another folder with --data; nothing was changed"
	case errors.Is(err, backup.ErrEncrypted):
		e.Why, e.Do = backup.ErrEncrypted.Error(), "give --passphrase-file or set "+passphraseVariable+"; or give a recipient's --identity"
	default:
		return err
	}
	return e
}
