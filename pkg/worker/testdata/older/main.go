// Command older is a worker of an earlier build: the test that builds it takes an event type out of the contract.
// It prints the sequence of each event that it handles, and ends with its standard input.
package main

import (
	"context"
	"fmt"
	"io"
	"os"

	"towpath.dev/pkg/worker"
)

type printer struct{}

func (printer) Handle(_ context.Context, m worker.Message) error {
	_, err := fmt.Println(m.Record.Seq)
	return err
}

func main() {
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	if err := run(ctx, os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context, bus, keys string) error {
	rt, err := worker.Open(ctx, worker.Options{Service: "build", Bus: bus, Keys: keys})
	if err != nil {
		return err
	}
	defer rt.Close()
	return rt.Consume(ctx, worker.Consumer{Durable: "build"}, printer{})
}
