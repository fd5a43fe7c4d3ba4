package ledger

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"

	"towpath.dev/events"
	"towpath.dev/pkg/seal"
)

// nowTimeout bounds one wish to have what is new sealed, or to end an alarm.
const nowTimeout = 12 * time.Second

// answerQuestions answers what is asked about the sealed log, until ctx ends.
func (s *sealer) answerQuestions(ctx context.Context) (*nats.Subscription, error) {
	return s.rt.Ledger.Conn().QueueSubscribe("seal.*", "seal", func(m *nats.Msg) {
		var act func(context.Context) seal.Answer
		switch m.Subject {
		case events.SealNowSubject:
			act = s.sealNow
		case events.SealResumeSubject:
			act = func(ctx context.Context) seal.Answer { return s.resume(ctx, m.Data) }
		default:
			s.reply(m, s.answer(m))
			return
		}
		go func() {
			ctx, cancel := context.WithTimeout(ctx, nowTimeout)
			defer cancel()
			s.reply(m, act(ctx))
		}()
	})
}

func (s *sealer) reply(m *nats.Msg, a seal.Answer) {
	data, err := json.Marshal(a)
	if err == nil {
		err = m.Respond(data)
	}
	if err != nil {
		s.logger.Warn("a question about the sealed log was not answered", "subject", m.Subject, "err", err)
	}
}

func (s *sealer) answer(m *nats.Msg) seal.Answer {
	s.mu.Lock()
	status, tree := s.status, s.tree
	s.mu.Unlock()
	if m.Subject == events.SealStatusSubject {
		return seal.Answer{Status: &status}
	}
	var q seal.Question
	switch err := json.Unmarshal(m.Data, &q); {
	case m.Subject != events.SealHashesSubject:
		return seal.Answer{Error: fmt.Sprintf("nothing is answered on %.60s", m.Subject)}
	case err != nil:
		return seal.Answer{Error: "the question is unreadable: " + err.Error()}
	case len(q.Indexes) > seal.MaxIndexes:
		return seal.Answer{Error: fmt.Sprintf("%d hashes are asked for, at most %d are given at once", len(q.Indexes), seal.MaxIndexes)}
	case status.Alarm != "":
		return seal.Answer{Error: fmt.Sprintf("no proof can be made: %v: %s", seal.ErrAlarm, status.Alarm)}
	case tree == nil:
		return seal.Answer{Error: "nothing is sealed yet"}
	}
	hashes, err := tree.ReadHashes(q.Indexes)
	if err != nil {
		return seal.Answer{Error: err.Error()}
	}
	a := seal.Answer{Hashes: make([][]byte, len(hashes))}
	for i := range hashes {
		a.Hashes[i] = hashes[i][:]
	}
	return a
}

// sealNow has what is new sealed and says how far the ledger is sealed then.
func (s *sealer) sealNow(ctx context.Context) seal.Answer {
	done := make(chan error, 1)
	var err error
	select {
	case s.now <- done:
		select {
		case err = <-done:
		case <-ctx.Done():
			err = ctx.Err()
		}
	case <-ctx.Done():
		err = fmt.Errorf("the ledger service did not come to it: %w", ctx.Err())
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	status := s.status
	if err != nil && status.Alarm == "" {
		return seal.Answer{Error: err.Error()}
	}
	return seal.Answer{Status: &status}
}

// resume has the alarm ended that stands.
func (s *sealer) resume(ctx context.Context, question []byte) seal.Answer {
	s.mu.Lock()
	before := s.status
	s.mu.Unlock()
	var q seal.Question
	switch err := json.Unmarshal(question, &q); {
	case err != nil:
		return seal.Answer{Error: "the question is unreadable: " + err.Error()}
	case q.Reason == "":
		return seal.Answer{Error: "the reason is missing: it is recorded"}
	case before.Alarm == "":
		return seal.Answer{Error: "there is no alarm to end"}
	}
	wish := ending{reason: q.Reason, done: make(chan error, 1)}
	var err error
	select {
	case s.endings <- wish:
		err = <-wish.done // bounded by the append's own time
	case <-ctx.Done():
		err = fmt.Errorf("the ledger service did not come to it: %w", ctx.Err())
	}
	if err != nil {
		return seal.Answer{Error: err.Error()}
	}
	return seal.Answer{Status: &before}
}
