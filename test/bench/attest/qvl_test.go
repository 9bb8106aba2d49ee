package attest

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// qvlTable times the two dcap-qvl npm builds inside one node process, on the same
// quote and collateral, with the same number of rounds.
func qvlTable(t *testing.T, out *strings.Builder, rows []*row) {
	t.Helper()
	n := newNode(t, "", nil)
	script, err := os.ReadFile(filepath.Join("testdata", "qvl.mjs"))
	if err != nil {
		t.Fatal(err)
	}
	main := filepath.Join(*qvlDir, "bench.mjs") // node looks for packages beside the script
	if err := os.WriteFile(main, script, 0o600); err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(n.hw.RootPEM())
	tcb, tcbSig := cut(t, n.set.TCBInfo, "tcbInfo")
	qe, qeSig := cut(t, n.set.QEIdentity, "enclaveIdentity")
	request, err := json.Marshal(map[string]any{"rounds": *rounds, "root": block.Bytes, "quote": n.ev.Quote, "at": at().Unix(), "collateral": map[string]any{
		"tcb_info": tcb, "tcb_info_signature": tcbSig, "tcb_info_issuer_chain": string(n.set.TCBInfoIssuerChain),
		"qe_identity": qe, "qe_identity_signature": qeSig, "qe_identity_issuer_chain": string(n.set.QEIdentityIssuerChain),
		"root_ca_crl": hex.EncodeToString(n.set.RootCRL), "pck_crl": hex.EncodeToString(n.set.PCKCRL), "pck_crl_issuer_chain": string(n.set.PCKCRLIssuerChain),
	}})
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "node", filepath.Base(main))
	cmd.Dir, cmd.Stdin, cmd.Stderr = *qvlDir, bytes.NewReader(append(request, '\n')), os.Stderr
	b, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var cold float64
	for _, r := range rows {
		if r.name == "TDX cold" {
			slices.Sort(r.times)
			cold = float64(r.times[len(r.times)/2].Nanoseconds()) / 1000
		}
	}
	for s := bufio.NewScanner(bytes.NewReader(b)); s.Scan(); {
		var r struct {
			Name          string
			P10, P50, P99 float64
		}
		if err := json.Unmarshal(s.Bytes(), &r); err != nil {
			t.Fatalf("%v: %s", err, s.Text())
		}
		fmt.Fprintf(out, "| %s | %.1f | %.1f | %.1f | | | %.1f x TDX cold |\n", r.Name, r.P10, r.P50, r.P99, r.P50/cold)
	}
}

// cut splits a body {"name":INNER,"signature":"HEX"}.
func cut(t *testing.T, body []byte, name string) (inner, sig string) {
	t.Helper()
	rest, ok1 := strings.CutPrefix(string(body), `{"`+name+`":`)
	inner, sig, ok2 := strings.Cut(rest, `,"signature":"`)
	if !ok1 || !ok2 {
		t.Fatalf("%s is not in its envelope", name)
	}
	return inner, strings.TrimSuffix(sig, `"}`)
}
