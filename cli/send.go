package cli

import (
	"context"
	"encoding/json"
	"io"
	"net/http"

	"github.com/confidential-cloud/phala/cvm"
)

// maxAnswer bounds the answers that send reads, in bytes.
const maxAnswer = 16 << 20

// send calls the API with headers of the contract (X-Prepare-Only and its kind).
func send(ctx context.Context, s *session, method, path string, h http.Header, body, out any) error {
	res, err := s.api.Call(ctx, method, path, h, body)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if err != nil {
		return cvm.Errorf(cvm.Unavailable, "%s %s: reading the answer: %w", method, path, err)
	}
	if out == nil || len(b) == 0 {
		return nil
	}
	if err := json.Unmarshal(b, out); err != nil {
		return cvm.Errorf(cvm.Unavailable, "%s %s: the answer is not what the API documents: %w", method, path, err)
	}
	return nil
}
