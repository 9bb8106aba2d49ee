// Package tpm verifies a TPM 2.0 quote: ParseQuote reads a TPMS_ATTEST and trusts
// nothing; Verify checks the attestation key's certificate chain, the signature,
// the qualifying data, the PCR values, and the launch log behind PCR14.
//
// A TPM in a cloud VM is software of the cloud: what its quote proves, it proves in
// the cloud's word. Beside a TD or an SNP guest it adds measurements to a hardware
// proof (attest/composite); alone it is only as good as the root that is admitted.
//
// Formats: TCG TPM 2.0 Library, part 2 (TPMS_ATTEST, TPMT_SIGNATURE); Google's
// instance extension 1.3.6.1.4.1.11129.2.1.21; PCR14 as the reference extends it.
package tpm

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"math/big"
	"slices"
	"time"

	"github.com/confidential-cloud/phala/attest/claim"
	"github.com/confidential-cloud/phala/attest/collateral"
	"github.com/confidential-cloud/phala/attest/eventlog"
)

// LaunchPCR is the register that the guest extends with runtime events.
const LaunchPCR = 14

// Limits of what is accepted from others.
const (
	MaxQuote = 4 << 10 // bytes of TPMS_ATTEST, and of TPMT_SIGNATURE
	MaxChain = 5       // certificates from the attestation key's to the root
)

// Evidence is what a machine shows.
type Evidence struct {
	Quote     []byte             // TPMS_ATTEST
	Signature []byte             // TPMT_SIGNATURE over it
	PCRs      map[int][]byte     // the values of exactly the quoted PCRs
	Chain     [][]byte           // DER: the attestation key's certificate first
	BootLog   []byte             // the firmware's log behind PCR0-7; nil when nothing is said about it
	Events    []eventlog.Runtime // what PCR14 replays to; nil when nothing is said about it
}

// Endorsements are the vendor's statements. Nothing in them is trusted unverified.
type Endorsements struct {
	Chain [][]byte // DER: what follows Evidence.Chain up to and including the root
	CRLs  [][]byte // DER: one current list of each issuer
}

// Policy is what a relying party admits. The zero Policy accepts nothing.
type Policy struct {
	Roots             [][32]byte     // sha256 of an admitted root's SubjectPublicKeyInfo
	WithoutRevocation bool           // no revocation lists are asked for
	Nonce             []byte         // the qualifying data that the quote must carry; 1 to 64 bytes
	Bank              Alg            // SHA256, SHA384 or SHA512
	PCRs              map[int][]byte // values that these PCRs must have; at least one
	Projects          []string       // admitted Google projects by id; nil refuses unless AnyMachine
	AnyMachine        bool           // any machine under the root will do
	Kernels           [][]byte       // admitted kernel images by Authenticode digest of Bank; nil asks for no boot log
	Phases            []claim.Phase  // admitted phases of the launch log; nil asks for no log
}

// Claims is what verified evidence says.
type Claims struct {
	KeySPKI  [32]byte         `json:"key_spki"` // sha256 of the attestation key
	Key      []byte           `json:"-"`        // the attestation key's SubjectPublicKeyInfo, DER
	RootSPKI [32]byte         `json:"root_spki"`
	Bank     Alg              `json:"bank"`
	PCRs     map[int][]byte   `json:"pcrs"`
	Nonce    []byte           `json:"nonce"`
	Resets   uint32           `json:"resets"`
	Restarts uint32           `json:"restarts"`
	Firmware uint64           `json:"firmware"`
	Machine  *Machine         `json:"machine,omitempty"`
	Kernel   []byte           `json:"kernel,omitempty"` // only if the policy names kernels
	Launch   *eventlog.Launch `json:"launch,omitempty"` // only with a replayed log
	Expires  time.Time        `json:"expires"`
}

// Verify checks a quote. A rejection is a *claim.Rejection; the checks are listed
// either way. Claims mean something only without an error.
func Verify(ev Evidence, e Endorsements, p Policy, at time.Time) (Claims, []claim.Check, error) {
	v := &verifier{ev: ev, e: e, p: p, at: at, rec: &claim.Recorder{Variant: claim.VariantTPM}}
	v.verify()
	checks := v.rec.Checks()
	if !claim.OK(checks) {
		return Claims{}, checks, &claim.Rejection{Checks: checks, Genuine: v.rec.Passed(claim.TPMQuoteParse, claim.TPMKeyChain, claim.RootAdmitted, claim.TPMQuoteSignature)}
	}
	return v.out, checks, nil
}

type verifier struct {
	ev  Evidence
	e   Endorsements
	p   Policy
	at  time.Time
	rec *claim.Recorder
	q   *Quote
	sig *signature
	out Claims
}

func (v *verifier) verify() {
	if !v.rec.Try(claim.TPMQuoteParse, v.parse()) {
		return
	}
	v.out.Bank, v.out.Nonce, v.out.Firmware = v.q.Bank, v.q.ExtraData, v.q.Firmware
	v.out.Resets, v.out.Restarts = v.q.Resets, v.q.Restarts
	if chain := v.chain(); chain != nil {
		v.rec.Try(claim.TPMQuoteSignature, v.signature(chain[0]))
		v.machine(chain[0])
	}
	switch {
	case len(v.p.Nonce) == 0 || len(v.p.Nonce) > maxDigest:
		v.rec.Fail(claim.TPMQuoteNonce, "", "", "the policy names no nonce")
	case !bytes.Equal(v.p.Nonce, v.q.ExtraData):
		v.rec.Fail(claim.TPMQuoteNonce, short(v.p.Nonce), short(v.q.ExtraData), "the quote was not made for this request")
	default:
		v.rec.Pass(claim.TPMQuoteNonce, "")
	}
	v.pcrs()
	v.boot()
	v.launch()
}

func (v *verifier) parse() (err error) {
	if len(v.ev.Quote) > MaxQuote || len(v.ev.Signature) > MaxQuote {
		return refuse("more than %d bytes", MaxQuote)
	}
	if v.q, err = ParseQuote(v.ev.Quote); err != nil {
		return err
	}
	v.sig, err = parseSignature(v.ev.Signature)
	return err
}

// rules: Google's CAs sign with RSA; other vendors' with ECDSA.
func rules() collateral.Rules {
	return collateral.Rules{
		Algorithms: []x509.SignatureAlgorithm{x509.SHA256WithRSA, x509.SHA384WithRSA, x509.SHA512WithRSA, x509.ECDSAWithSHA256, x509.ECDSAWithSHA384},
		Critical:   []string{oidSubjectAltName}, // the TPM's model as a directory name: no one is authenticated by it
		MinRSA:     2048,
	}
}

const oidSubjectAltName = "2.5.29.17"

func (v *verifier) chain() []*x509.Certificate {
	chain, err := collateral.ParseDER(slices.Concat(v.ev.Chain, v.e.Chain), MaxChain)
	if err == nil {
		err = rules().Verify(chain, v.at)
	}
	// An endorsement key decrypts and never signs: a certificate for both is no attestation key's.
	if err == nil && (len(chain) < 2 || chain[0].KeyUsage != x509.KeyUsageDigitalSignature) {
		err = refuse("the certificate is not that of an attestation key")
	}
	if !v.rec.Try(claim.TPMKeyChain, err) {
		return nil
	}
	for _, c := range chain {
		v.until(c.NotAfter)
	}
	root := collateral.SPKIHash(chain[len(chain)-1])
	v.out.RootSPKI, v.out.KeySPKI, v.out.Key = root, collateral.SPKIHash(chain[0]), chain[0].RawSubjectPublicKeyInfo
	if slices.Contains(v.p.Roots, root) {
		v.rec.Pass(claim.RootAdmitted, short(root[:]))
	} else {
		v.rec.Fail(claim.RootAdmitted, "an admitted root", "sha256 of its key "+short(root[:]), "the attestation key's root is not admitted")
	}
	if v.p.WithoutRevocation {
		v.rec.Pass(claim.CRLRevoked, "not asked for by the policy")
		return chain
	}
	until, err := collateral.CheckRevoked(chain, v.e.CRLs, v.at)
	if v.rec.Try(claim.CRLRevoked, err) {
		v.until(until)
	}
	return chain
}

func (v *verifier) until(t time.Time) {
	if v.out.Expires.IsZero() || t.Before(v.out.Expires) {
		v.out.Expires = t
	}
}

func (v *verifier) signature(ak *x509.Certificate) error {
	h := v.sig.hash.hash().New()
	h.Write(v.ev.Quote)
	digest := h.Sum(nil)
	switch k := ak.PublicKey.(type) {
	case *rsa.PublicKey:
		if v.sig.scheme == algRSASSA && rsa.VerifyPKCS1v15(k, v.sig.hash.hash(), digest, v.sig.rsa) == nil {
			return nil
		}
	case *ecdsa.PublicKey:
		known := k.Curve == elliptic.P256() || k.Curve == elliptic.P384()
		if known && v.sig.scheme == algECDSA && ecdsa.Verify(k, digest, new(big.Int).SetBytes(v.sig.r), new(big.Int).SetBytes(v.sig.s)) {
			return nil
		}
	}
	return refuse("the signature does not match")
}

// pcrs recomputes the quoted digest (with the hash of the signature, as TPMs do)
// from the values beside the quote, and compares those that the policy names.
func (v *verifier) pcrs() {
	size := 0
	if a := v.q.Bank.hash(); a != 0 {
		size = a.Size()
	}
	h := v.sig.hash.hash().New()
	n := 0
	for i := range numPCRs {
		if !v.q.Has(i) {
			continue
		}
		val, ok := v.ev.PCRs[i]
		if !ok || size == 0 || len(val) != size {
			v.rec.Fail(claim.TPMPCRDigest, "", "", fmt.Sprintf("PCR%d is quoted and its value in bank %#x is not here", i, uint16(v.q.Bank)))
			return
		}
		h.Write(val)
		n++
	}
	if got := h.Sum(nil); n != len(v.ev.PCRs) || !bytes.Equal(got, v.q.Digest) {
		v.rec.Fail(claim.TPMPCRDigest, short(v.q.Digest), short(got), "the values are not those that were quoted")
		return
	}
	v.rec.Pass(claim.TPMPCRDigest, fmt.Sprintf("%d registers", n))
	v.out.PCRs = v.ev.PCRs
	switch {
	case len(v.p.PCRs) == 0 || v.p.Bank.hash() == 0:
		v.rec.Fail(claim.TPMPCRs, "", "", "the policy names no register")
		return
	case v.p.Bank != v.q.Bank:
		v.rec.Fail(claim.TPMPCRs, fmt.Sprintf("bank %#x", uint16(v.p.Bank)), fmt.Sprintf("bank %#x", uint16(v.q.Bank)), "another bank was quoted")
		return
	}
	for i := range numPCRs {
		if want, ok := v.p.PCRs[i]; ok && (len(want) != size || !bytes.Equal(want, v.ev.PCRs[i])) {
			v.rec.Fail(claim.TPMPCRs, short(want), short(v.ev.PCRs[i]), fmt.Sprintf("PCR%d", i))
			return
		}
	}
	for i := range v.p.PCRs {
		if i < 0 || i >= numPCRs {
			v.rec.Fail(claim.TPMPCRs, "", "", fmt.Sprintf("the policy names PCR%d, which does not exist", i))
			return
		}
	}
	v.rec.Pass(claim.TPMPCRs, fmt.Sprintf("%d registers", len(v.p.PCRs)))
}

// launch replays the runtime events into PCR14. A policy that names phases needs
// the log; without one, a log that is there must still be true.
func (v *verifier) launch() {
	if len(v.ev.Events) == 0 && len(v.p.Phases) == 0 {
		return
	}
	if !v.rec.Passed(claim.TPMPCRDigest) {
		v.rec.Skip(claim.EventlogReplay, "the PCR values are not those quoted")
		return
	}
	want, ok := v.out.PCRs[LaunchPCR]
	if !ok {
		v.rec.Fail(claim.EventlogReplay, "", "", "PCR14 is not quoted")
		return
	}
	got, err := eventlog.ReplayBank(v.ev.Events, v.q.Bank.hash())
	switch {
	case err != nil:
		v.rec.Fail(claim.EventlogReplay, "", "", err.Error())
		return
	case !bytes.Equal(got, want):
		v.rec.Fail(claim.EventlogReplay, short(want), short(got), "PCR14 does not replay")
		return
	}
	v.rec.Pass(claim.EventlogReplay, fmt.Sprintf("%d events", len(v.ev.Events)))
	l, err := eventlog.ReadLaunch(v.ev.Events)
	if !v.rec.Try(claim.EventlogIdentity, err) {
		return
	}
	if !slices.Contains(v.p.Phases, l.Phase) {
		v.rec.Fail(claim.PhaseCheck, fmt.Sprintf("one of %q", v.p.Phases), string(l.Phase), "the policy does not admit this phase of the boot")
		return
	}
	v.rec.Pass(claim.PhaseCheck, string(l.Phase))
	v.out.Launch = &l
}

// NonceFor is the qualifying data that binds a TPM quote to a CPU quote: sha256 of
// its exact bytes (the reference's rule on Google's TDX machines).
func NonceFor(cpuQuote []byte) []byte {
	h := sha256.Sum256(cpuQuote)
	return h[:]
}

func short(b []byte) string {
	if len(b) > 16 {
		b = b[:16]
	}
	return hex.EncodeToString(b) + "..."
}

// ReportDataFor is the report data by which a CPU's quote names a TPM's attestation
// key, in the reference's general form: SHA-512("tpm-ak:" || SubjectPublicKeyInfo).
func ReportDataFor(spki []byte) [64]byte {
	return sha512.Sum512(append([]byte("tpm-ak:"), spki...))
}
