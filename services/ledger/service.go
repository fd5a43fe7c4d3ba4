package ledger

import (
	"context"
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

// Service is the door as a service.
type Service struct {
	rt    *worker.Runtime
	door  door.Door
	ready func()
}

// New validates and does no IO.
func New(cfg Config, deps Deps) (*Service, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	client := deps.Runtime.Ledger
	return &Service{
		rt:    deps.Runtime,
		door:  door.Door{Conn: client.Conn(), Trust: client.Trust(), Epoch: client.Epoch(), Logger: deps.Runtime.Logger},
		ready: deps.Ready,
	}, nil
}

// Run opens the door and records rotations of keys until ctx ends, then finishes the appends that it has
// begun.
func (s *Service) Run(ctx context.Context) error {
	recording, stop := context.WithCancel(ctx)
	defer stop()
	var work sync.WaitGroup
	defer work.Wait()
	work.Go(func() { recordRotations(recording, s.rt) })
	err := s.door.Serve(ctx, s.ready)
	stop()
	return err
}
