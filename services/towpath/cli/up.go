package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"

	"github.com/spf13/cobra"

	"towpath.dev/pkg/worker"
	"towpath.dev/services/towpath"
	"towpath.dev/services/towpath/client"
	"towpath.dev/services/towpath/screen"
)

func (p *program) upCommand() *cobra.Command {
	var cfg towpath.Config
	var level, format string
	c := &cobra.Command{
		Use: "up", Short: "Run everything in one process: bus, registry and every service",
		Long: `Run everything in one process on one data folder: bus, registry and every service. It needs a
Docker Engine (towpath doctor looks) and nothing else. It ends in order on Ctrl-C or SIGTERM, at
once on a second one; what is deployed runs on, and the next start goes on where this one ended,
even after kill -9.

The data folder holds all state: the ledger, images, repositories, keys, platform.yaml, and the
token of the first user (mode 0600).`,
		Example: examples("towpath up", "towpath up --data /srv/towpath --listen 127.0.0.1:9070", "towpath up --listen 127.0.0.1:0 --edge-listen 127.0.0.1:0 --registry-listen 127.0.0.1:0"),
		Args:    arguments(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			if level == "" {
				level = "info"
				if p.err.Terminal {
					level = "warn"
				}
			}
			logger, err := worker.NewLogger(p.err.Out, format, level)
			if err != nil {
				return usageError{err}
			}
			cfg.Data, err = filepath.Abs(p.data)
			if err != nil {
				return usage("--data %q: %v", p.data, err)
			}
			return p.up(c.Context(), cfg, logger)
		},
	}
	c.Flags().StringVar(&cfg.Listen, "listen", towpath.DefaultListen, "address of the gateway: HTTP API, git and pages; port 0 takes a free one")
	c.Flags().StringVar(&cfg.EdgeListen, "edge-listen", towpath.DefaultEdgeListen, "address at which apps are reached")
	c.Flags().StringVar(&cfg.RegistryListen, "registry-listen", towpath.DefaultRegistryListen, "address of the registry; Docker Engines pull from it")
	c.Flags().StringVar(&cfg.BusListen, "bus-listen", "", "address of the bus, for bots, such as 127.0.0.1:4222 (default: none)")
	ackWaitFlag(c, &cfg.AckWait)
	c.Flags().StringVar(&level, "log-level", "", "debug, info, warn or error (default: warn on a terminal, else info)")
	c.Flags().StringVar(&format, "log-format", "text", "text or json")
	return c
}

func (p *program) up(ctx context.Context, cfg towpath.Config, logger *slog.Logger) error {
	service, err := towpath.New(cfg, towpath.Deps{Logger: logger, Ready: p.banner})
	if err != nil {
		return usageError{err}
	}
	stopping := context.AfterFunc(ctx, func() {
		fmt.Fprintln(p.err.Out, "\nStopping: what has begun is finished first. Once more stops at once.")
	})
	defer stopping()
	err = service.Run(ctx)
	var used *towpath.InUseError
	if errors.As(err, &used) {
		return &client.Error{What: "starting on the data folder", On: used.Data, Why: used.Why(),
			Do: "use that one, stop it, or give another folder with --data", Code: client.CodeFailed}
	}
	return err
}

// banner says that everything is up, and what to do next.
func (p *program) banner(at towpath.Place) {
	s := p.out
	row := func(name, value, note string) {
		line := fmt.Sprintf("  %s  %s", s.Paint(screen.Dim, fmt.Sprintf("%-8s", name)), value)
		if note != "" {
			line += "  " + s.Paint(screen.Dim, note)
		}
		p.say("%s", line)
	}
	_, port, _ := net.SplitHostPort(at.Edge)
	p.say("%s\n", s.Paint(screen.Bold, "Towpath is up."))
	row("gateway", at.URL, "git, HTTP API, pages")
	row("apps", "http://<app>.<environment>.localhost:"+port, "")
	row("registry", at.Registry, "")
	row("runs", at.Runs, "")
	row("data", at.Data, "its file token says who you are")
	who := screen.Line(at.Name)
	if at.Email != "" {
		who += " <" + screen.Line(at.Email) + ">"
	}
	row("you", who, "admin")
	helper := ""
	if at.Data != client.DataFolder() {
		p.say("\nIn other terminals, first:\n  export TOWPATH_DATA=%s", shellQuote(at.Data))
	}
	if h, err := helperFor(at.Data); err == nil {
		helper = h
	}
	p.say("\nIn the folder of an app with a Dockerfile, called hello for example:")
	p.say("  towpath init            writes its towpath.yaml")
	p.say("  towpath remote          lets git push here; it does these two:")
	p.say("  %s", s.Paint(screen.Dim, "  git remote add towpath "+at.URL+"/git/hello.git"))
	p.say("  %s", s.Paint(screen.Dim, "  git config credential."+at.URL+".helper "+shellQuote(helper)))
	p.say("  git push towpath main   starts hello/1; towpath show hello draws its path")
	p.say("\nCtrl-C stops Towpath. What is deployed runs on.")
}
