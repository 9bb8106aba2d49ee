package check

import (
	"bytes"
	"encoding/hex"
	"encoding/json"

	"github.com/confidential-cloud/phala/attest"
	"github.com/confidential-cloud/phala/attest/collateral"
	"github.com/confidential-cloud/phala/cvm"
)

// ParseCollateral reads the collateral of the tool contract: "tcb_info" and
// "qe_identity" (the exact signed JSON, in a string) with "tcb_info_signature" and
// "qe_identity_signature" (hex, 64 bytes), "tcb_info_issuer_chain",
// "qe_identity_issuer_chain" and "pck_crl_issuer_chain" (PEM), "root_ca_crl" and
// "pck_crl" (DER in hex), and "pck_certificate_chain" (PEM), which is not used: a
// quote brings its own. For SEV-SNP: "vcek" (DER in hex), "cert_chain" (PEM) and
// "crl" (DER in hex) in the member "amd". For AWS Nitro: "crls" (list of DER in hex)
// in the member "aws". What is missing fails a check later, by its name.
func ParseCollateral(raw []byte) (collateral.Set, error) {
	s, _, err := parseCollateral(raw)
	return s, err
}

func parseCollateral(raw []byte) (s collateral.Set, unused bool, err error) {
	f := object("collateral", raw)
	f.only("tcb_info", "tcb_info_signature", "tcb_info_issuer_chain", "qe_identity", "qe_identity_signature", "qe_identity_issuer_chain",
		"root_ca_crl", "pck_crl", "pck_crl_issuer_chain", "pck_certificate_chain", "amd", "aws")
	s = collateral.Set{
		TCBInfo:               f.signed("tcbInfo", "tcb_info"),
		TCBInfoIssuerChain:    []byte(f.text("tcb_info_issuer_chain")),
		QEIdentity:            f.signed("enclaveIdentity", "qe_identity"),
		QEIdentityIssuerChain: []byte(f.text("qe_identity_issuer_chain")),
		RootCRL:               f.hex("root_ca_crl"),
		PCKCRL:                f.hex("pck_crl"),
		PCKCRLIssuerChain:     []byte(f.text("pck_crl_issuer_chain")),
	}
	_ = f.text("pck_certificate_chain")
	if f.err == nil && f.has("amd") {
		a := object("collateral.amd", f.m["amd"])
		a.only("vcek", "cert_chain", "crl")
		s.AMD = &collateral.AMD{Leaf: a.hex("vcek"), Chain: []byte(a.text("cert_chain")), CRL: a.hex("crl")}
		f.err = a.err
	}
	if f.err == nil && f.has("aws") {
		a := object("collateral.aws", f.m["aws"])
		a.only("crls")
		s.AWS = &collateral.AWS{CRLs: a.hexList("crls")}
		f.err = a.err
	}
	return s, f.has("pck_certificate_chain"), f.err
}

// signed joins a statement and its signature to the vendor's response body. The
// statement's bytes are kept exactly: they are what was signed. That it is one
// JSON object keeps it from bringing members of the body.
func (f *fields) signed(name, key string) []byte {
	statement, sig := []byte(f.text(key)), f.hex(key+"_signature")
	if !f.has(key) {
		return nil
	}
	if !json.Valid(statement) || !bytes.HasPrefix(statement, []byte("{")) {
		f.fail("%s is not a JSON object in a string", key)
		return nil
	}
	var b bytes.Buffer
	b.WriteString(`{"` + name + `":`)
	b.Write(statement)
	b.WriteString(`,"signature":"` + hex.EncodeToString(sig) + `"}`)
	return b.Bytes()
}

// ReadCollateral reads a file of collateral for one piece of evidence: the tool
// contract's form (see ParseCollateral), or a bundle (collateral.Bundle), of which
// the entry for the evidence's platform is taken.
func ReadCollateral(raw []byte, ev attest.Evidence) (collateral.Set, error) {
	f := object("collateral", raw)
	if f.err != nil {
		return collateral.Set{}, f.err
	}
	if !f.has("format") {
		return ParseCollateral(raw)
	}
	b, err := collateral.ParseBundle(raw)
	if err != nil {
		return collateral.Set{}, err
	}
	subject, err := attest.Subject(ev)
	if err != nil {
		return collateral.Set{}, cvm.Errorf(cvm.Invalid, "the collateral bundle: %w", err).WithReason("collateral-unavailable")
	}
	if s, ok := b.Find(subject); ok {
		return s, nil
	}
	return collateral.Set{}, cvm.Errorf(cvm.Invalid, "the collateral bundle has no entry for this evidence's platform").
		WithReason("collateral-unavailable").WithFix("export one for it: phala collateral export")
}

// EncodeCollateral writes a set in the form that ParseCollateral reads.
func EncodeCollateral(s collateral.Set) (json.RawMessage, error) {
	doc := map[string]any{
		"tcb_info_issuer_chain": string(s.TCBInfoIssuerChain), "qe_identity_issuer_chain": string(s.QEIdentityIssuerChain),
		"root_ca_crl": hex.EncodeToString(s.RootCRL), "pck_crl": hex.EncodeToString(s.PCKCRL), "pck_crl_issuer_chain": string(s.PCKCRLIssuerChain),
	}
	if s.AMD != nil {
		doc = map[string]any{"amd": map[string]string{"vcek": hex.EncodeToString(s.AMD.Leaf), "cert_chain": string(s.AMD.Chain), "crl": hex.EncodeToString(s.AMD.CRL)}}
		return json.Marshal(doc)
	}
	if s.AWS != nil {
		lists := []string{}
		for _, l := range s.AWS.CRLs {
			lists = append(lists, hex.EncodeToString(l))
		}
		return json.Marshal(map[string]any{"aws": map[string]any{"crls": lists}})
	}
	for key, x := range map[string]struct {
		name string
		body []byte
	}{"tcb_info": {"tcbInfo", s.TCBInfo}, "qe_identity": {"enclaveIdentity", s.QEIdentity}} {
		statement, err := collateral.ParseSigned(x.body, x.name)
		if err != nil {
			return nil, err
		}
		doc[key], doc[key+"_signature"] = string(statement.Bytes), hex.EncodeToString(statement.Signature)
	}
	return json.Marshal(doc)
}
