// Command bench measures Towpath against the numbers that it is held to, as ratios taken in one run on one
// machine, so that they mean the same everywhere:
//
//	go run ./e2e/bench
//
// It builds towpath without the race detector first. It needs a Docker Engine for the whole run and the environment; -only handler,advance,cost,memory,rebuild leaves that out. It exits 0 also where a
// target is missed: it is for measuring, and says which it was.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime/pprof"
	"strings"
	"syscall"
)

// figure is one measured number beside the number that it is held to.
type figure struct {
	what   string
	value  string
	target string // empty: for scale only
	met    bool
}

// measurement is one part of the benchmark.
type measurement struct {
	name string
	run  func(ctx context.Context, o options) ([]figure, error)
}

// options are what the flags say.
type options struct {
	runs   int // how many whole runs, and as many scripted ones
	events int // how many events for the ledger's parts
	large  int // how many events a large ledger has
	small  int // how many a small one has
	// advanced is how many runs the workers with empty effects carry
	advanced int
}

var measurements = []measurement{
	{"handler", handlerLatency},
	{"advance", advance},
	{"cost", handlingCost},
	{"memory", memory},
	{"rebuild", rebuild},
	{"run", wholeRun},
	{"environment", wholeEnvironment},
}

func main() {
	var o options
	flag.IntVar(&o.runs, "runs", 5, "whole runs to carry to prod, after one that warms up")
	flag.IntVar(&o.events, "events", 1000, "events to append for the handler's latency and cost")
	flag.IntVar(&o.large, "large", 100_000, "events of a large ledger; half as many for the rebuild")
	flag.IntVar(&o.small, "small", 1000, "events of a small ledger")
	flag.IntVar(&o.advanced, "advanced", 200, "runs to carry with empty effects")
	only := flag.String("only", "", "measure these `parts` only, with commas between them: handler, advance, cost, memory, rebuild, run, environment")
	profile := flag.String("cpuprofile", "", "write a profile of the processors' time of all that is measured to this `file` (go tool pprof)")
	flag.Parse()
	if *profile != "" {
		f, err := os.Create(*profile)
		if err == nil {
			err = pprof.StartCPUProfile(f)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
			os.Exit(1)
		}
		defer pprof.StopCPUProfile()
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := measure(ctx, o, *only); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func measure(ctx context.Context, o options, only string) error {
	for _, m := range measurements {
		if only != "" && !strings.Contains(","+only+",", ","+m.name+",") {
			continue
		}
		figures, err := m.run(ctx, o)
		if err != nil {
			return fmt.Errorf("%s: %w", m.name, err)
		}
		for _, f := range figures {
			verdict := ""
			switch {
			case f.target == "":
			case f.met:
				verdict = "target " + f.target + ": met"
			default:
				verdict = "target " + f.target + ": MISSED"
			}
			fmt.Printf("%-72s %14s   %s\n", f.what, f.value, verdict)
		}
	}
	return nil
}
