package api

import (
	"context"
	"net/http"
	"strconv"
	"time"

	"github.com/confidential-cloud/phala/api/store"
)

// limit is how many tries a subject has in a window.
type limit struct {
	name   string
	n      int
	window time.Duration
}

// The limits. Tries are counted in the database, so that they hold for all API
// processes together; a right guess forgives those of its subject.
func limitLogin() limit   { return limit{"login", 10, 15 * time.Minute} }
func limitAddress() limit { return limit{"address", 100, 15 * time.Minute} }
func limitFactor() limit  { return limit{"factor", 5, 15 * time.Minute} }
func limitCode() limit    { return limit{"code", 10, 15 * time.Minute} }
func limitDevice() limit  { return limit{"device", 30, 10 * time.Minute} }
func limitQuotes() limit  { return limit{"quotes", 60, 10 * time.Minute} }
func limitPublic() limit  { return limit{"public", 120, time.Minute} }

// take counts a try and refuses (429) a subject that has none left. It counts first,
// so that tries at the same time do not share one. It is bookkeeping, not a change
// that is audited.
func (s *Server) take(ctx context.Context, l limit, subject string) error {
	key := l.name + " " + subject
	if err := s.store.Attempt(store.WithAudit(ctx, nil), key, l.window); err != nil {
		return err
	}
	n, end, err := s.store.Attempts(ctx, key, l.window)
	if err != nil || n <= l.n {
		return err
	}
	if hc := requestOf(ctx); hc != nil {
		hc.SetHeader("Retry-After", strconv.Itoa(1+int(end.Sub(s.now())/time.Second)))
	}
	return text(http.StatusTooManyRequests, "too many tries: wait a while")
}

// forgive gives a subject that guessed right its tries back.
func (s *Server) forgive(ctx context.Context, l limit, subject string) {
	if err := s.store.Forgive(store.WithAudit(ctx, nil), l.name+" "+subject); err != nil {
		s.log.Error("forgetting wrong guesses", "err", err)
	}
}
