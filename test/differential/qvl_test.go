package differential

import (
	"bufio"
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// qvl is one node process that holds both dcap-qvl builds.
type qvl struct {
	in  io.WriteCloser
	out *bufio.Reader
}

// newQVL installs the two packages by the committed lock file and starts node. It
// skips aloud where node or the package registry is missing.
func newQVL(t *testing.T, rootPEM []byte) *qvl {
	t.Helper()
	for _, tool := range []string{"node", "npm"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("SKIPPED: the dcap-qvl builds are not compared: no %s", tool)
		}
	}
	dir := t.TempDir()
	for _, n := range []string{"package.json", "package-lock.json", "oracle.mjs"} {
		b, err := os.ReadFile(filepath.Join("testdata", "qvl", n))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, n), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	install := exec.CommandContext(t.Context(), "npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline")
	install.Dir = dir
	if out, err := install.CombinedOutput(); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatalf("npm ci: %v\n%s", err, out)
		}
		t.Skipf("SKIPPED: the dcap-qvl builds are not compared: npm ci: %v\n%s", err, out)
	}
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), "node", "oracle.mjs")
	cmd.Dir, cmd.Stderr = dir, os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = in.Close(); _ = cmd.Wait() })
	q := &qvl{in: in, out: bufio.NewReaderSize(out, 1<<20)}
	block, _ := pem.Decode(rootPEM)
	q.call(t, map[string]any{"root": block.Bytes}, &struct{}{})
	return q
}

func (q *qvl) call(t *testing.T, request, answer any) {
	t.Helper()
	b, err := json.Marshal(request)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := q.in.Write(append(b, '\n')); err != nil {
		t.Fatalf("the node process is gone: %v", err)
	}
	line, err := q.out.ReadBytes('\n')
	if err != nil {
		t.Fatalf("the node process is gone: %v", err)
	}
	if err := json.Unmarshal(line, answer); err != nil {
		t.Fatalf("%v: %s", err, line)
	}
}

type answer struct {
	OK     bool   `json:"ok"`
	Status string `json:"status"`
	Error  string `json:"error"`
}

func (a answer) verdict() verdict {
	why := a.Error
	if !a.OK && why == "" {
		why = "no reason given"
	}
	return verdict{ok: a.OK, status: a.Status, why: why}
}

// ask returns what both builds say; ok is false when the input has no form that
// they take: they are handed the signed objects already cut out of their envelopes.
func (q *qvl) ask(t *testing.T, c sample) (js, wasm verdict, ok bool) {
	t.Helper()
	tcb, tcbSig, ok1 := envelope(c.set.TCBInfo, "tcbInfo")
	qe, qeSig, ok2 := envelope(c.set.QEIdentity, "enclaveIdentity")
	if !ok1 || !ok2 {
		return js, wasm, false
	}
	var a struct{ JS, WASM answer }
	q.call(t, map[string]any{"quote": c.quote, "at": c.at.Unix(), "collateral": map[string]any{
		"tcb_info": tcb, "tcb_info_signature": tcbSig, "tcb_info_issuer_chain": string(c.set.TCBInfoIssuerChain),
		"qe_identity": qe, "qe_identity_signature": qeSig, "qe_identity_issuer_chain": string(c.set.QEIdentityIssuerChain),
		"root_ca_crl": hex.EncodeToString(c.set.RootCRL), "pck_crl": hex.EncodeToString(c.set.PCKCRL),
		"pck_crl_issuer_chain": string(c.set.PCKCRLIssuerChain),
	}}, &a)
	return a.JS.verdict(), a.WASM.verdict(), true
}

// envelope cuts a body exactly as written: {"name":INNER,"signature":"HEX"}.
func envelope(body []byte, name string) (inner, sig string, ok bool) {
	head, mid := []byte(`{"`+name+`":`), []byte(`,"signature":"`)
	i := bytes.LastIndex(body, mid)
	if !bytes.HasPrefix(body, head) || i < len(head) || !bytes.HasSuffix(body, []byte(`"}`)) {
		return "", "", false
	}
	inner, sig = string(body[len(head):i]), string(body[i+len(mid):len(body)-2])
	_, err := hex.DecodeString(sig)
	return inner, sig, err == nil && !strings.Contains(inner, `,"signature":`)
}
