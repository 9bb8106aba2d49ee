package cloudapi

import (
	"encoding/json"
	"strings"
	"testing"
	"time"
)

func auditLines(t testing.TB, n int) []string {
	t.Helper()
	var out []string
	prev := ""
	for i := range n {
		b, err := json.Marshal(AuditEntry{Seq: int64(i + 1), Time: time.Unix(int64(i), 0).UTC(), Action: "a", Outcome: AuditDone, Request: "r", Prev: prev})
		if err != nil {
			t.Fatal(err)
		}
		out, prev = append(out, string(b)), AuditHash(b)
	}
	return out
}

func TestVerifyAudit(t *testing.T) {
	lines := auditLines(t, 4)
	head, err := VerifyAudit(strings.NewReader(strings.Join(lines, "\n") + "\n"))
	if err != nil || head.Seq != 4 || head.Hash != AuditHash([]byte(lines[3])) {
		t.Fatal(head, err)
	}
	if head, err := VerifyAudit(strings.NewReader("")); err != nil || head != (AuditHead{}) {
		t.Error(head, err)
	}
	for name, tt := range map[string]struct {
		lines []string
		want  string
	}{
		"dropped":   {[]string{lines[0], lines[2]}, "line 2 is missing"},
		"swapped":   {[]string{lines[1], lines[0]}, "line 1 is missing"},
		"twice":     {[]string{lines[0], lines[0]}, "line 2 is missing"},
		"changed":   {[]string{lines[0], strings.Replace(lines[1], `"a"`, `"b"`, 1), lines[2]}, "line 2 was changed"},
		"spaced":    {[]string{lines[0] + " ", lines[1]}, "line 1 was changed"},
		"no json":   {[]string{lines[0], "x"}, "line 2 is not one"},
		"more keys": {[]string{strings.Replace(lines[0], "{", `{"extra":1,`, 1)}, "line 1 is not one"},
		"too long":  {[]string{strings.Repeat("x", maxAuditLine+1)}, "token too long"},
	} {
		if _, err := VerifyAudit(strings.NewReader(strings.Join(tt.lines, "\n"))); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// No change of one byte goes unseen: either the chain breaks, or the head differs.
func FuzzVerifyAudit(f *testing.F) {
	good := strings.Join(auditLines(f, 3), "\n")
	want, err := VerifyAudit(strings.NewReader(good))
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte(good))
	f.Fuzz(func(t *testing.T, b []byte) {
		head, err := VerifyAudit(strings.NewReader(string(b)))
		norm := strings.TrimSuffix(strings.ReplaceAll(string(b), "\r\n", "\n"), "\n")
		if err == nil && head == want && norm != good && strings.TrimSuffix(norm, "\r") != good {
			t.Errorf("another log has the same head: %q", b)
		}
	})
}
