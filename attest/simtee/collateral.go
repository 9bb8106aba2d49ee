package simtee

import (
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/big"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/confidential-cloud/phala/attest/collateral"
)

const vendorTime = "2006-01-02T15:04:05Z"

// validity is how long collateral lasts, as Intel's does.
const validity = 30 * 24 * time.Hour

// Collateral is what the service hands out at a time: minted for that time, to
// the hour, so that it is always fresh and repeats within the hour.
func (h *Hardware) Collateral(at time.Time) (collateral.Set, error) {
	h.mu.Lock()
	f := h.faults
	h.mu.Unlock()
	from := at.UTC().Truncate(time.Hour).Add(-time.Hour)
	switch {
	case f.Expired:
		from = from.Add(-validity - 24*time.Hour)
	case f.Future:
		from = from.Add(26 * time.Hour)
	}
	m := minter{h: h, f: f, from: from, until: from.Add(validity)}
	var s collateral.Set
	var err error
	if s.TCBInfo, err = m.tcbInfo(); err != nil {
		return s, err
	}
	if s.QEIdentity, err = m.qeIdentity(); err != nil {
		return s, err
	}
	if s.RootCRL, err = m.crl(certRoot, map[string]bool{certCA: f.RevokeCA, certTCB: f.RevokeTCB}); err != nil {
		return s, err
	}
	if s.PCKCRL, err = m.crl(certCA, map[string]bool{certPCK: f.RevokePCK}); err != nil {
		return s, err
	}
	s.TCBInfoIssuerChain = slices.Concat(h.pem[m.signer()], h.pem[certRoot])
	s.QEIdentityIssuerChain = s.TCBInfoIssuerChain
	s.PCKCRLIssuerChain = slices.Concat(h.pem[certCA], h.pem[certRoot])
	return s, nil
}

type minter struct {
	h           *Hardware
	f           Faults
	from, until time.Time
}

func (m minter) signer() string {
	if m.f.SignedByCA {
		return certCA
	}
	return certTCB
}

func (m minter) crl(issuer string, revoke map[string]bool) ([]byte, error) {
	t := &x509.RevocationList{Number: big.NewInt(m.from.Unix()), ThisUpdate: m.from, NextUpdate: m.until}
	for name, on := range revoke {
		if on {
			t.RevokedCertificateEntries = append(t.RevokedCertificateEntries,
				x509.RevocationListEntry{SerialNumber: m.h.certs[name].SerialNumber, RevocationTime: m.from})
		}
	}
	slices.SortFunc(t.RevokedCertificateEntries, func(a, b x509.RevocationListEntry) int { return a.SerialNumber.Cmp(b.SerialNumber) })
	return x509.CreateRevocationList(nil, t, m.h.certs[issuer], deterministic{m.h.keys[issuer]})
}

type component struct {
	SVN int `json:"svn"`
}

func components(svn [16]byte) (out []component) {
	for _, v := range svn {
		out = append(out, component{int(v)})
	}
	return out
}

type obj = map[string]any

func status(s string) string {
	if s == "" {
		return "UpToDate"
	}
	return s
}

func (m minter) level(l obj, st string, advisories []string) obj {
	l = obj{"tcb": l, "tcbDate": "2024-03-13T00:00:00Z", "tcbStatus": st}
	if len(advisories) > 0 {
		l["advisoryIDs"] = advisories
	}
	return l
}

func (m minter) tcbInfo() ([]byte, error) {
	newer, svn, tdx := sgxSVN(), sgxSVN(), tdxSVN()
	newer[0]++
	tdx[0], tdx[1] = 0, 0 // rated by the module's own identity
	at := func(sgx [16]byte) obj {
		return obj{"sgxtcbcomponents": components(sgx), "pcesvn": pceSVN, "tdxtcbcomponents": components(tdx)}
	}
	var levels []obj
	if m.f.TCBStatus != "" || m.f.NoMatchingTCB {
		levels = append(levels, m.level(at(newer), "UpToDate", nil))
	}
	if !m.f.NoMatchingTCB {
		levels = append(levels, m.level(at(svn), status(m.f.TCBStatus), m.f.Advisories))
	}
	zeros := strings.Repeat("0", 96)
	attrs, mask := strings.Repeat("0", 16), strings.Repeat("F", 16)
	fmspc, pce := m.h.cfg.FMSPC, pceIDHex
	if m.f.OtherFMSPC {
		fmspc = otherFMSPC
	}
	if m.f.OtherPCEID {
		pce = otherPCEID
	}
	return m.sign("tcbInfo", obj{
		"id": "TDX", "version": 3, "issueDate": m.from.Format(vendorTime), "nextUpdate": m.until.Format(vendorTime),
		"fmspc": fmspc, "pceId": pce, "tcbType": 0, "tcbEvaluationDataNumber": evalNumber,
		"tdxModule": obj{"mrsigner": zeros, "attributes": attrs, "attributesMask": mask},
		"tdxModuleIdentities": []obj{{
			"id": fmt.Sprintf("TDX_%02x", moduleMajor), "mrsigner": zeros, "attributes": attrs, "attributesMask": mask,
			"tcbLevels": m.svnLevels(moduleMinor, m.f.ModuleStatus),
		}},
		"tcbLevels": levels,
	})
}

// svnLevels rates one version; a bad status stands below a newer good one.
func (m minter) svnLevels(svn int, st string) (out []obj) {
	if st != "" {
		out = append(out, m.level(obj{"isvsvn": svn + 1}, "UpToDate", nil))
	}
	return append(out, m.level(obj{"isvsvn": svn}, status(st), nil))
}

func (m minter) qeIdentity() ([]byte, error) {
	signer := qeSigner()
	return m.sign("enclaveIdentity", obj{
		"id": "TD_QE", "version": 2, "issueDate": m.from.Format(vendorTime), "nextUpdate": m.until.Format(vendorTime),
		"tcbEvaluationDataNumber": evalNumber, "miscselect": "00000000", "miscselectMask": "FFFFFFFF",
		"attributes":     "11" + strings.Repeat("0", 30),
		"attributesMask": "FBFFFFFFFFFFFFFF" + strings.Repeat("0", 16),
		"mrsigner":       strings.ToUpper(hex.EncodeToString(signer[:])), "isvprodid": qeProdID,
		"tcbLevels": m.svnLevels(qeSVN, m.f.QEStatus),
	})
}

// sign splices the exact signed bytes into the envelope.
func (m minter) sign(name string, v obj) ([]byte, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	if m.f.Statement != nil {
		b = m.f.Statement(name, b)
	}
	sig, err := signRaw(m.h.keys[m.signer()], b)
	if err != nil {
		return nil, err
	}
	return fmt.Appendf(nil, `{"%s":%s,"signature":"%x"}`, name, b, sig), nil
}

// Handler is the collateral service: the paths of Intel's PCS v4 that a TDX
// verifier asks, and the PCCS root list.
func (h *Hardware) Handler() http.Handler {
	mux := http.NewServeMux()
	serve := func(path, header, contentType string, pick func(collateral.Set) (body, chain []byte)) {
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, r *http.Request) {
			if q := r.URL.Query().Get("fmspc"); q != "" && !strings.EqualFold(q, h.cfg.FMSPC) {
				http.Error(w, "no such FMSPC", http.StatusNotFound)
				return
			}
			if ca := r.URL.Query().Get("ca"); ca != "" && ca != "platform" {
				http.Error(w, "no such CA", http.StatusNotFound)
				return
			}
			s, err := h.Collateral(h.now())
			if err != nil {
				h.log.Error("minting collateral", "error", err)
				http.Error(w, "cannot mint collateral", http.StatusInternalServerError)
				return
			}
			body, chain := pick(s)
			if header != "" {
				w.Header().Set(header, strings.ReplaceAll(url.QueryEscape(string(chain)), "+", "%20"))
			}
			w.Header().Set("Content-Type", contentType)
			_, _ = w.Write(body)
		})
	}
	serve("/tdx/certification/v4/tcb", "TCB-Info-Issuer-Chain", "application/json",
		func(s collateral.Set) ([]byte, []byte) { return s.TCBInfo, s.TCBInfoIssuerChain })
	serve("/tdx/certification/v4/qe/identity", "SGX-Enclave-Identity-Issuer-Chain", "application/json",
		func(s collateral.Set) ([]byte, []byte) { return s.QEIdentity, s.QEIdentityIssuerChain })
	serve("/sgx/certification/v4/pckcrl", "SGX-PCK-CRL-Issuer-Chain", "application/pkix-crl",
		func(s collateral.Set) ([]byte, []byte) { return s.PCKCRL, s.PCKCRLIssuerChain })
	serve("/sgx/certification/v4/rootcacrl", "", "application/pkix-crl",
		func(s collateral.Set) ([]byte, []byte) { return []byte(hex.EncodeToString(s.RootCRL)), nil })
	serve("/IntelSGXRootCA.der", "", "application/pkix-crl", // the root's distribution point
		func(s collateral.Set) ([]byte, []byte) { return s.RootCRL, nil })
	if h.amd != nil { // the paths of the two vendors differ
		kds := h.amd.Handler()
		mux.Handle("/vcek/", kds)
		mux.Handle("/vlek/", kds)
	}
	return mux
}
