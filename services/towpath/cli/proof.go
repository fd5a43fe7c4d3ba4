package cli

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"towpath.dev/pkg/identity"
	"towpath.dev/pkg/proof"
	"towpath.dev/pkg/seal"
	"towpath.dev/services/towpath/client"
	"towpath.dev/services/towpath/screen"
)

func (p *program) auditExportCommand() *cobra.Command {
	var q client.ProofQuery
	var file, checkpoint, keys string
	c := &cobra.Command{
		Use: "export RUN | APP@ENV | DIGEST", Short: "Write one file that proves a deploy",
		Long: `Write one file that proves a deploy with no server: the events of the run and of what it depends on,
their signatures, their place in the sealed ledger, the checkpoints with their signatures, and what the
registry holds about the image (provenance, SBOM, vet's verdict). What is new is sealed first.

A file covers everything from the run's first event to a checkpoint: the newest one or, where more than
50,000 events came since, the first after the run's last event (--whole goes on to the newest). It holds
the names of other apps that had events meanwhile, and nothing else of them.`,
		Example: examples("towpath audit export hello/3 --output hello-3.proof", "towpath audit export hello@prod --output prod.proof",
			"towpath audit export sha256:2350bf… --output image.proof --checkpoint checkpoint-2026-11.txt"),
		Args: arguments(cobra.ExactArgs(1)), ValidArgsFunction: p.completeRuns,
		RunE: func(c *cobra.Command, args []string) error {
			if err := readProofTarget(args[0], &q); err != nil {
				return err
			}
			if checkpoint != "" {
				kept, err := readKept(checkpoint, p.keysOr(keys))
				if err != nil {
					return err
				}
				q.Extends = kept.Size
			}
			api, err := p.open()
			if err != nil {
				return err
			}
			var data bytes.Buffer
			if err := api.Proof(c.Context(), q, &data); err != nil {
				return err
			}
			if file == "-" {
				_, err := p.out.Out.Write(data.Bytes())
				return err
			}
			if err := os.WriteFile(file, data.Bytes(), 0o644); err != nil {
				return fmt.Errorf("writing the proof: %w", err)
			}
			p.say("%s holds the proof, %d KiB\n  → towpath audit verify %s --keys trust.json", file, (data.Len()+1023)/1024, file)
			return nil
		},
	}
	c.Flags().StringVarP(&file, "output", "o", "", "`file` to write; - for standard output")
	c.Flags().BoolVar(&q.Whole, "whole", false, "go on to the newest checkpoint, however many events that are")
	c.Flags().StringVar(&checkpoint, "checkpoint", "", "an older checkpoint's `file`, which the proof is to extend")
	c.Flags().StringVar(&keys, "keys", "", "trust.json `file` to read that checkpoint with (default: of the data folder)")
	if err := c.MarkFlagRequired("output"); err != nil {
		panic(err) // the flag is defined above
	}
	return c
}

// readProofTarget reads "hello/3", "hello@prod" or "sha256:…".
func readProofTarget(text string, q *client.ProofQuery) error {
	if strings.HasPrefix(text, "sha256:") {
		q.Digest = text
		return nil
	}
	if app, env, found := strings.Cut(text, "@"); found {
		if app == "" || env == "" {
			return usage("%q is neither a run (hello/3), nor an app in an environment (hello@prod), nor a digest (sha256:…)", text)
		}
		q.App, q.Env = app, env
		return nil
	}
	ref, err := exactRun(text)
	q.App, q.Run = ref.app, ref.number
	return err
}

// keysOr is the trust.json that was named, or the data folder's.
func (p *program) keysOr(named string) string {
	if named != "" {
		return named
	}
	return filepath.Join(p.data, "keys", identity.TrustFile)
}

// readKept opens a checkpoint that somebody kept.
func readKept(path, keys string) (seal.Signed, error) {
	trust, err := identity.LoadTrust(keys)
	if err != nil {
		return seal.Signed{}, err
	}
	return seal.Read(path, trust)
}

func (p *program) auditVerifyCommand() *cobra.Command {
	var keys, checkpoint string
	var witnesses []string
	var asJSON bool
	c := &cobra.Command{
		Use: "verify FILE", Short: "Judge such a file with no server: PROVEN or FORGED",
		Long: `Judge a file of towpath audit export with nothing but the installation's public keys, which have to
come from elsewhere than the file: every signature, each event's place in the sealed ledger, that nothing
of the run was left out, the evidence about the image, and whether it all adds up (vetted before deployed,
approved before deployed and not by an author, one digest all the way).

--checkpoint compares with a checkpoint that you kept earlier: a ledger that was changed or rolled back since
is found. --witness-key asks for the cosignature of a witness: a ledger whose own key signed two histories
is found. Exit code 0: PROVEN. 1: FORGED (something is not what was signed and sealed), or NOT PROVEN
(everything is as recorded, and it does not add up). 2: FILE is no proof, or the checkpoint none of this
installation.`,
		Example: examples("towpath audit verify prod.proof --keys trust.json",
			"towpath audit verify prod.proof --keys trust.json --checkpoint checkpoint-2026-11.txt --witness-key witness.example.org+1a2b3c4d+BC…"),
		Args: arguments(cobra.ExactArgs(1)),
		RunE: func(_ *cobra.Command, args []string) error {
			terms, err := p.terms(keys, checkpoint, witnesses)
			if err != nil {
				return err
			}
			data, err := readProof(args[0])
			if err != nil {
				return err
			}
			v := proof.Verify(data, terms)
			if asJSON {
				err = p.printJSON(struct {
					Proven bool `json:"proven"`
					proof.Verdict
				}{v.Proven(), v})
			} else {
				p.verdict(v)
			}
			if err == nil && !v.Proven() {
				return codeError(exitFailed)
			}
			return err
		},
	}
	c.Flags().StringVar(&keys, "keys", "", "trust.json `file` with the installation's public keys (default: of the data folder)")
	c.Flags().StringVar(&checkpoint, "checkpoint", "", "`file` with a checkpoint that you kept")
	c.Flags().StringArrayVar(&witnesses, "witness-key", nil, "`key` of a witness that has to have cosigned, or a file that holds it")
	jsonFlag(c, &asJSON)
	return c
}

// terms reads what the auditor brings along.
func (p *program) terms(keys, checkpoint string, witnesses []string) (proof.Terms, error) {
	var t proof.Terms
	var err error
	if t.Trust, err = identity.LoadTrust(p.keysOr(keys)); err != nil {
		return t, &client.Error{What: "reading the public keys", Why: err.Error(),
			Do: "give the installation's trust.json with --keys; its administrator has it in the keys folder", Code: client.CodeFailed}
	}
	if checkpoint != "" {
		text, err := os.ReadFile(checkpoint)
		if err != nil {
			return t, fmt.Errorf("reading the checkpoint: %w", err)
		}
		t.Checkpoint = string(text)
	}
	for _, text := range witnesses {
		text, err := witnessKey(text)
		if err != nil {
			return t, err
		}
		w, err := seal.ParseWitness(text)
		if err != nil {
			return t, err
		}
		t.Witnesses = append(t.Witnesses, w)
	}
	if checkpoint != "" {
		if _, err := seal.Open(t.Checkpoint, t.Trust, t.Witnesses...); err != nil {
			return t, &client.Error{What: "reading the checkpoint", On: checkpoint, Why: err.Error(),
				Do: "give one that towpath audit checkpoint --output kept, and the public keys of the installation that it is from", Code: client.CodeInvalid}
		}
	}
	return t, nil
}

// witnessKey is the key that was named, or that the file of this name holds; "" stays what it is.
func witnessKey(named string) (string, error) {
	if data, err := os.ReadFile(named); err == nil {
		named = string(data)
	}
	if named == "" {
		return "", nil
	}
	w, err := seal.ParseWitness(named)
	if err != nil {
		return "", usageError{err}
	}
	return w.String(), nil
}

func readProof(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &client.Error{What: "reading the proof", On: path, Why: "there is no such file", Do: "towpath audit export writes one", Status: 404}
	}
	if err == nil && info.Size() > proof.MaxSize {
		return nil, &client.Error{What: "reading the proof", On: path, Why: fmt.Sprintf("it has %d bytes; at most %d are read", info.Size(), proof.MaxSize), Code: client.CodeFailed}
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading the proof: %w", err)
	}
	if !proof.Resembles(data) {
		return nil, &client.Error{What: "reading the proof", On: path, Why: "it is no proof", Do: "give a file that towpath audit export wrote", Code: client.CodeInvalid}
	}
	return data, nil
}

func (p *program) verdict(v proof.Verdict) {
	style := screen.Green
	if !v.Proven() {
		style = screen.Red
	}
	word, rest, _ := strings.Cut(v.Headline(), ":")
	p.say("%s: %s", p.out.Paint(style, word), screen.Line(strings.TrimSpace(rest)))
	if !v.Proven() {
		return
	}
	for _, line := range v.Story[min(1, len(v.Story)):] {
		p.say("  %s", screen.Line(line))
	}
	p.say("  %d events and %d signatures are good; sealed in a checkpoint of %d events", v.Events, v.Signatures, v.Size)
	if len(v.Limits) > 0 {
		p.say("Not proven:")
	}
	for _, line := range v.Limits {
		p.say("  %s", screen.Line(line))
	}
}
