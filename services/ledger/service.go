package ledger

import (
	"context"
	"fmt"
	"sync"

	"towpath.dev/pkg/ledger/door"
	"towpath.dev/pkg/worker"
)

// Deps are what the service works with.
type Deps struct {
	Runtime *worker.Runtime // opened as identity "ledger"
	// Ready, where not nil, is called once the door is open.
	Ready func()
}

// Service is the door and the sealer.
type Service struct {
	rt     *worker.Runtime
	door   door.Door
	sealer *sealer
	ready  func()
}

// New validates and does no IO.
func New(cfg Config, deps Deps) (*Service, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	client := deps.Runtime.Ledger
	sealer, err := newSealer(cfg.withDefaults(), deps.Runtime)
	if err != nil {
		return nil, err
	}
	return &Service{
		rt:     deps.Runtime,
		door:   door.Door{Conn: client.Conn(), Trust: client.Trust(), Epoch: client.Epoch(), Logger: deps.Runtime.Logger},
		sealer: sealer, ready: deps.Ready,
	}, nil
}

// Run opens the door, seals, and records rotations of keys until ctx ends, then finishes the appends that it
// has begun. A sealer that had to stop does not close the door.
func (s *Service) Run(ctx context.Context) error {
	beside, stop := context.WithCancel(ctx)
	defer stop()
	questions, err := s.sealer.answerQuestions(beside)
	if err != nil {
		return fmt.Errorf("listening for questions about the sealed log: %w", err)
	}
	defer questions.Unsubscribe()
	var work sync.WaitGroup
	defer work.Wait()
	work.Go(func() { recordRotations(beside, s.rt) })
	work.Go(func() { s.sealer.run(beside) })
	err = s.door.Serve(ctx, s.ready)
	stop()
	return err
}
