package tdx

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"encoding/hex"
	"time"

	"github.com/confidential-cloud/phala/attest/claim"
	"github.com/confidential-cloud/phala/attest/collateral"
)

// Result is what the vendor's part of a verification found. Fields hold values
// only as far as the checks that fill them passed.
type Result struct {
	Quote    *Quote
	PCK      *PCK
	RootSPKI [32]byte // sha256; of the chain's own root, admitted or not
	TCB      claim.TCB
	Marks    collateral.Floor // how far the collateral has come; nil until it is verified
	Expires  time.Time        // the earliest end among certificates, collateral and lists
}

// Genuine lists the checks whose passing means that the holder of an admitted
// root's key stands behind the quote.
func Genuine() []string {
	return []string{claim.QuoteParse, claim.PCKChain, claim.RootAdmitted, claim.QEReport, claim.QuoteKey, claim.QuoteSignature}
}

// Verify makes the vendor's checks (all but policy on the TD's content) and
// records each of them. admitted says whether a root, by the sha256 of its
// SubjectPublicKeyInfo, is trusted. The TCB status is evaluated, not judged: only
// Revoked fails here. It remembers nothing; a Cache does the same, faster.
func Verify(raw []byte, c collateral.Set, admitted func(spki [32]byte) bool, at time.Time, rec *claim.Recorder) Result {
	return (*Cache)(nil).Verify(raw, c, admitted, at, rec)
}

// Verify is the function of that name, but for signatures that c has seen.
func (c *Cache) Verify(raw []byte, set collateral.Set, admitted func(spki [32]byte) bool, at time.Time, rec *claim.Recorder) Result {
	if c == nil {
		c = &Cache{}
	}
	v := &verifier{cache: c, at: at, rec: rec}
	q, err := ParseQuote(raw)
	if !rec.Try(claim.QuoteParse, err) {
		return v.res
	}
	v.q, v.res.Quote = q, q
	v.pckChain()
	if v.host != nil {
		if v.res.RootSPKI = v.issuers.spki; admitted(v.res.RootSPKI) {
			rec.Pass(claim.RootAdmitted, short(v.res.RootSPKI[:]))
		} else {
			rec.Fail(claim.RootAdmitted, "an admitted root", "sha256 of its key "+short(v.res.RootSPKI[:]), "the quote's root is not admitted")
		}
		v.qe()
	}
	v.signature()
	if v.host != nil {
		v.collateral(set)
		v.remember()
	}
	return v.res
}

type verifier struct {
	cache   *Cache
	q       *Quote
	at      time.Time
	rec     *claim.Recorder
	issuers *issuers
	host    *host // nil until the PCK chain verified
	res     Result

	leaf   []byte                               // PEM of the host's certificate
	above  []byte                               // PEM of its issuers
	unseen struct{ issuers, host, report bool } // verified by this call, not found in the cache
}

// until lowers the result's end of validity.
func (v *verifier) until(t time.Time) {
	if v.res.Expires.IsZero() || t.Before(v.res.Expires) {
		v.res.Expires = t
	}
}

func (v *verifier) pckChain() {
	i, h, err := v.chain()
	if err == nil {
		err = v.current(i, h)
	}
	if !v.rec.Try(claim.PCKChain, err) {
		return
	}
	v.issuers, v.host, v.res.PCK = i, h, h.pck
	v.until(h.until)
	v.until(i.ca.NotAfter)
	v.until(i.root.NotAfter)
}

// chain reads the PCK chain and checks what does not depend on time, or finds that
// these bytes were checked before.
func (v *verifier) chain() (i *issuers, h *host, err error) {
	if v.leaf, v.above, err = v.q.splitChain(); err != nil {
		return nil, nil, err
	}
	i, known := v.cache.issuers.Get(v.above)
	if !known {
		v.unseen.issuers = true
		if i, err = parseIssuers(v.above); err != nil {
			return nil, nil, err
		}
	}
	if h, ok := v.cache.hosts.Get(v.leaf, i.id[:]); ok {
		return i, h, nil // its issuers were checked with it
	}
	v.unseen.host = true
	leaf, pck, err := parseLeaf(v.leaf)
	if err != nil {
		return nil, nil, err
	}
	if !known {
		if err := i.check(); err != nil {
			return nil, nil, err
		}
	}
	if err := collateral.CheckIssued(leaf, i.ca, 0); err != nil {
		return nil, nil, err
	}
	h, err = hostOf(leaf, pck)
	return i, h, err
}

func (v *verifier) current(i *issuers, h *host) error {
	if err := collateral.CheckValidity(cnPCK, h.from, h.until, v.at); err != nil {
		return err
	}
	for _, c := range [...]*x509.Certificate{i.ca, i.root} {
		if err := collateral.CheckValidity(c.Subject.CommonName, c.NotBefore, c.NotAfter, v.at); err != nil {
			return err
		}
	}
	return nil
}

// remember keeps what this call verified, if an admitted root stands behind it.
func (v *verifier) remember() {
	n := v.unseen
	if !n.issuers && !n.host && !n.report || !v.rec.Passed(Genuine()...) {
		return
	}
	if n.issuers {
		v.cache.issuers.Put(v.issuers, v.above)
	}
	if n.host {
		v.cache.hosts.Put(v.host, v.leaf, v.issuers.id[:])
	}
	if n.report {
		id := v.host.reportID(v.q)
		v.cache.reports.Put(struct{}{}, id[:])
	}
}

// qe checks that the processor's key signed the QE report and that the report
// names the attestation key.
func (v *verifier) qe() {
	q := v.q
	id := v.host.reportID(q)
	if _, known := v.cache.reports.Get(id[:]); !known {
		v.unseen.report = true
		if !collateral.VerifyRaw(v.host.key, q.report, q.reportSig) {
			v.rec.Fail(claim.QEReport, "", "", "the quoting enclave's report is not signed by the processor's key")
			return
		}
	}
	v.rec.Pass(claim.QEReport, "")
	h := sha256.New()
	h.Write(q.key)
	h.Write(q.auth)
	var want [32]byte
	h.Sum(want[:0])
	got := q.report[320:384]
	if !sameBytes(got[:32], want[:]) || !zero(got[32:]) {
		v.rec.Fail(claim.QuoteKey, short(want[:]), short(got), "the quoting enclave's report names another attestation key")
		return
	}
	v.rec.Pass(claim.QuoteKey, "")
}

func (v *verifier) signature() {
	var point [65]byte // uncompressed
	point[0] = 4
	copy(point[1:], v.q.key)
	pub, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), point[:])
	if err != nil {
		v.rec.Fail(claim.QuoteSignature, "", "", "the attestation key is not a point of P-256")
		return
	}
	if !collateral.VerifyRaw(pub, v.q.signed, v.q.signature) {
		v.rec.Fail(claim.QuoteSignature, "", "", "the signature does not match the quote")
		return
	}
	v.rec.Pass(claim.QuoteSignature, "")
}

func sha(b []byte) [32]byte { return sha256.Sum256(b) }

func short(b []byte) string {
	if len(b) > 16 {
		b = b[:16]
	}
	var buf [35]byte
	return string(append(hex.AppendEncode(buf[:0], b), "..."...))
}

func zero(b []byte) bool {
	for _, x := range b {
		if x != 0 {
			return false
		}
	}
	return true
}

func le64(b []byte) uint64 { return binary.LittleEndian.Uint64(b) }
