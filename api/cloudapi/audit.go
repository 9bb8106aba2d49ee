package cloudapi

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"time"
)

// AuditEntry is a line of a workspace's audit log. Each line holds the hash of the
// line before it, so that no line can be changed, dropped or put between unseen.
type AuditEntry struct {
	Seq     int64     `json:"seq"`
	Time    time.Time `json:"time"`
	User    string    `json:"user,omitempty"`
	Via     string    `json:"via,omitempty" doc:"key, session, or nothing for who did not sign in"`
	ViaID   int64     `json:"via_id,omitempty"`
	Address string    `json:"address,omitempty"`
	Action  string    `json:"action" doc:"the operation's id in the OpenAPI document"`
	Target  string    `json:"target,omitempty" doc:"the request's path"`
	Outcome string    `json:"outcome" enum:"done,denied"`
	Request string    `json:"request" doc:"the same for all entries of one request"`
	Prev    string    `json:"prev" doc:"hex sha256 of the line before; empty in the first"`
}

// Outcomes of what an audit entry tells.
const (
	AuditDone   = "done"
	AuditDenied = "denied"
)

// AuditHead is the end of an audit log: who keeps it elsewhere notices when lines at
// the end go missing.
type AuditHead struct {
	Seq  int64  `json:"seq"`
	Hash string `json:"hash" doc:"hex sha256 of the newest line"`
}

// AuditPage is the answer of GET /audit.
type AuditPage struct {
	Items []AuditEntry `json:"items"`
	Head  AuditHead    `json:"head"`
}

// AuditVerdict is the answer of GET /audit/verify.
type AuditVerdict struct {
	Valid   bool      `json:"valid"`
	Head    AuditHead `json:"head"`
	Problem string    `json:"problem,omitempty" doc:"names the first line that is not as it was written"`
}

const maxAuditLine = 64 << 10

// AuditHash is the hash of a line, without its newline.
func AuditHash(line []byte) string {
	sum := sha256.Sum256(line)
	return hex.EncodeToString(sum[:])
}

// VerifyAudit checks an exported audit log (a line each, from the first) and returns
// its end. The error names the first line that does not continue the chain; that the
// end is the newest one only a head from elsewhere can tell.
func VerifyAudit(r io.Reader) (head AuditHead, err error) {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxAuditLine)
	for lines.Scan() {
		if head, err = head.Next(lines.Bytes()); err != nil {
			return head, err
		}
	}
	if err := lines.Err(); err != nil {
		return head, fmt.Errorf("audit log after line %d: %w", head.Seq, err)
	}
	return head, nil
}

// Next checks that line continues the log that ends at h.
func (h AuditHead) Next(line []byte) (AuditHead, error) {
	var e AuditEntry
	d := json.NewDecoder(bytes.NewReader(line))
	d.DisallowUnknownFields()
	if err := d.Decode(&e); err != nil {
		return h, fmt.Errorf("audit line %d is not one: %w", h.Seq+1, err)
	}
	if e.Seq != h.Seq+1 {
		return h, fmt.Errorf("audit line %d is missing: the next one says %d", h.Seq+1, e.Seq)
	}
	if e.Prev != h.Hash {
		return h, fmt.Errorf("audit line %d was changed: line %d was written after another one", h.Seq, e.Seq)
	}
	return AuditHead{Seq: e.Seq, Hash: AuditHash(line)}, nil
}
