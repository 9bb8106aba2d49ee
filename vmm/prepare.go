package vmm

import (
	"bufio"
	"context"
	"encoding/json"
	"net/http"

	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/internal/rpc"
	"github.com/confidential-cloud/phala/vmm/machine"
	"github.com/confidential-cloud/phala/vmm/vmmapi"
)

const (
	maxPrepareLine  = 16 << 10 // bytes of one progress line
	maxPrepareLines = 100_000  // of one answer; more is a guest that talks for talking's sake
)

// prepareLine is one line of the guest's answer to POST /v1/prepare. The last one
// says done or error.
type prepareLine struct {
	Message  string          `json:"message"`
	Progress string          `json:"progress"`
	Image    string          `json:"image"`
	Status   string          `json:"status"`
	Done     bool            `json:"done"`
	Error    json.RawMessage `json:"error"`
}

// guestPrepare has the running guest pull what another app-compose needs. nil as
// well from a guest that is too old to know how: it pulls when it boots.
func (m *VMM) guestPrepare(ctx context.Context, inst machine.Instance, compose []byte, progress func(string)) error {
	c := rpc.Client{Base: "http://guest", HTTP: guestClient(inst)}
	body, err := c.Stream(ctx, http.MethodPost, "/v1/prepare", struct {
		AppCompose string `json:"app_compose"`
	}{string(compose)})
	if cvm.CodeOf(err) == cvm.NotFound || cvm.CodeOf(err) == cvm.Unsupported {
		return nil
	}
	if err != nil {
		return err
	}
	defer body.Close()
	sc := bufio.NewScanner(body)
	sc.Buffer(nil, maxPrepareLine)
	for n := 0; sc.Scan(); n++ {
		if n == maxPrepareLines {
			return cvm.Errorf(cvm.Exhausted, "the guest sent more than %d lines of progress", maxPrepareLines).WithReason("prepare-failed")
		}
		var l prepareLine
		if json.Unmarshal(sc.Bytes(), &l) != nil {
			continue // the guest's words are for people
		}
		if err := prepareError(l.Error); err != nil {
			return err
		}
		if l.Done {
			return nil
		}
		if s := cut(orWord(l.Progress, orWord(l.Message, orWord(l.Status, l.Image))), 256); s != "" {
			progress(s)
		}
	}
	if err := sc.Err(); err != nil {
		return cvm.Errorf(cvm.Unavailable, "the guest's answer to prepare broke off: %w", err).WithReason("prepare-failed")
	}
	return cvm.Errorf(cvm.Unavailable, "the guest's answer to prepare ended without a verdict").WithReason("prepare-failed")
}

// prepareError reads an error: a VMError, or a text.
func prepareError(raw json.RawMessage) error {
	if len(raw) == 0 || string(raw) == "null" || string(raw) == `""` {
		return nil
	}
	var text string
	var e vmmapi.VMError
	if json.Unmarshal(raw, &text) != nil {
		text = string(raw)
		if json.Unmarshal(raw, &e) == nil && e.Message != "" {
			text = e.Message
		}
	}
	return cvm.Errorf(cvm.Precondition, "the guest cannot prepare the new version: %s", cut(text, 1024)).WithReason(orWord(cut(e.Reason, 64), "prepare-failed")).WithFix(cut(e.Fix, 512))
}
