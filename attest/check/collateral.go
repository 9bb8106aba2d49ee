package check

import (
	"bytes"
	"encoding/hex"
	"encoding/json"

	"github.com/confidential-cloud/phala/attest/collateral"
)

// ParseCollateral reads the collateral of the tool contract: "tcb_info" and
// "qe_identity" (the exact signed JSON, in a string) with "tcb_info_signature" and
// "qe_identity_signature" (hex, 64 bytes), "tcb_info_issuer_chain",
// "qe_identity_issuer_chain" and "pck_crl_issuer_chain" (PEM), "root_ca_crl" and
// "pck_crl" (DER in hex), and "pck_certificate_chain" (PEM), which is not used: a
// quote brings its own. For SEV-SNP: "vcek" (DER in hex), "cert_chain" (PEM) and
// "crl" (DER in hex) in the member "amd". What is missing fails a check later, by
// its name.
func ParseCollateral(raw []byte) (collateral.Set, error) {
	s, _, err := parseCollateral(raw)
	return s, err
}

func parseCollateral(raw []byte) (s collateral.Set, unused bool, err error) {
	f := object("collateral", raw)
	f.only("tcb_info", "tcb_info_signature", "tcb_info_issuer_chain", "qe_identity", "qe_identity_signature", "qe_identity_issuer_chain",
		"root_ca_crl", "pck_crl", "pck_crl_issuer_chain", "pck_certificate_chain", "amd")
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
