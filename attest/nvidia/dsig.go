package nvidia

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha512"
	"crypto/x509"
	"encoding/base64"
	"math/big"
	"slices"
	"strings"

	"github.com/confidential-cloud/phala/attest/collateral"
)

// XML Signature (W3C): the one profile that is accepted.
const (
	spaceDSig   = "http://www.w3.org/2000/09/xmldsig#"
	enveloped   = spaceDSig + "enveloped-signature"
	ecdsaSHA384 = "http://www.w3.org/2001/04/xmldsig-more#ecdsa-sha384"
	maxRIMCerts = 6
)

func digestMethod(uri string) crypto.Hash {
	switch uri {
	case "http://www.w3.org/2001/04/xmlenc#sha256":
		return crypto.SHA256
	case "http://www.w3.org/2001/04/xmldsig-more#sha384":
		return crypto.SHA384
	case "http://www.w3.org/2001/04/xmlenc#sha512":
		return crypto.SHA512
	}
	return 0
}

// signature is an enveloped XML signature over a whole document.
type signature struct {
	chain [][]byte // DER, as in KeyInfo
	info  []byte   // canonical SignedInfo: what is signed
	value []byte   // r || s
}

// parseSignature finds the one signature of a document and checks the digest that
// its SignedInfo states over all of the document but the signature itself.
func parseSignature(root *element) (*signature, error) {
	var sig *element
	if count(root, spaceDSig, "Signature") != 1 {
		return nil, refuseXML("want exactly one Signature")
	}
	for _, k := range children(root) {
		if k.space == spaceDSig && k.local == "Signature" {
			sig = k
		}
	}
	parts, err := exactly(sig, "SignedInfo", "SignatureValue", "KeyInfo")
	if err != nil {
		return nil, err
	}
	info, err := exactly(parts[0], "CanonicalizationMethod", "SignatureMethod", "Reference")
	if err != nil {
		return nil, err
	}
	if a := algorithm(info[1]); a != ecdsaSHA384 {
		return nil, refuseXML("signed with %.80q, want ECDSA with SHA-384", a)
	}
	out := &signature{}
	var ok bool
	if out.info, ok = canonical(parts[0], nil, algorithm(info[0])); !ok || len(children(info[0])) != 0 {
		return nil, refuseXML("canonicalisation %.80q is not known", algorithm(info[0]))
	}
	if err := checkReference(info[2], root, sig); err != nil {
		return nil, err
	}
	if out.value, err = base64Text(parts[1]); err != nil || len(out.value) != signatureSize {
		return nil, refuseXML("the signature is not %d bytes", signatureSize)
	}
	return out, out.keyInfo(parts[2])
}

// checkReference recomputes the digest over the whole document.
func checkReference(ref, root, sig *element) error {
	if len(ref.attrs) > 2 || value(ref, "URI") != "" || !slices.ContainsFunc(ref.attrs, func(a attr) bool { return a.local == "URI" }) {
		return refuseXML("the signature is not over the whole document")
	}
	parts, err := exactly(ref, "Transforms", "DigestMethod", "DigestValue")
	if err != nil {
		return err
	}
	t := children(parts[0])
	method := c14n10 // what a transform to bytes means when none is named
	if len(t) == 2 {
		method = algorithm(t[1])
	}
	if len(t) == 0 || len(t) > 2 || algorithm(t[0]) != enveloped || slices.ContainsFunc(t, func(e *element) bool { return e.local != "Transform" || len(children(e)) != 0 }) {
		return refuseXML("the signature's transforms are not known")
	}
	h := digestMethod(algorithm(parts[1]))
	if h == 0 {
		return refuseXML("digest method %.80q", algorithm(parts[1]))
	}
	signed, ok := canonical(root, sig, method)
	if !ok {
		return refuseXML("canonicalisation %.80q is not known", method)
	}
	want, err := base64Text(parts[2])
	if err != nil {
		return err
	}
	d := h.New()
	d.Write(signed)
	if !bytes.Equal(d.Sum(nil), want) {
		return refuseXML("the document was altered after it was signed")
	}
	return nil
}

func (s *signature) keyInfo(e *element) error {
	data, err := exactly(e, "X509Data")
	if err != nil {
		return err
	}
	for _, k := range children(data[0]) {
		if k.local != "X509Certificate" || k.space != spaceDSig || len(s.chain) == maxRIMCerts {
			return refuseXML("want 1 to %d certificates and nothing else", maxRIMCerts)
		}
		der, err := base64Text(k)
		if err != nil {
			return err
		}
		s.chain = append(s.chain, der)
	}
	return nil
}

// verify checks the signature over SignedInfo.
func (s *signature) verify(signer *x509.Certificate) error {
	k, ok := signer.PublicKey.(*ecdsa.PublicKey)
	d := sha512.Sum384(s.info)
	if !ok || k.Curve != elliptic.P384() || !ecdsa.Verify(k, d[:], new(big.Int).SetBytes(s.value[:48]), new(big.Int).SetBytes(s.value[48:])) {
		return refuseXML("the signature does not match")
	}
	return nil
}

// parsed reads the chain, completed by the issuers handed in when it does not
// carry its root itself.
func (s *signature) parsed(issuers [][]byte) ([]*x509.Certificate, error) {
	chain, err := collateral.ParseDER(s.chain, maxRIMCerts)
	if err != nil {
		return nil, err
	}
	if last := chain[len(chain)-1]; bytes.Equal(last.RawIssuer, last.RawSubject) {
		return chain, nil
	}
	return collateral.ParseDER(slices.Concat(s.chain, issuers), maxRIMCerts)
}

// exactly returns the child elements of e, which must have these names of XML
// Signature in this order, with white space alone between them.
func exactly(e *element, names ...string) ([]*element, error) {
	if e == nil {
		return nil, refuseXML("a part of the signature is missing")
	}
	kids := children(e)
	ok := len(kids) == len(names)
	for i := 0; ok && i < len(kids); i++ {
		ok = kids[i].local == names[i] && kids[i].space == spaceDSig
	}
	if !ok || strings.TrimSpace(text(e)) != "" {
		return nil, refuseXML("%s is not made of %v", e.local, names)
	}
	return kids, nil
}

func children(e *element) (out []*element) {
	for _, k := range e.kids {
		if c, ok := k.(*element); ok {
			out = append(out, c)
		}
	}
	return out
}

// text is the text directly in e.
func text(e *element) string {
	var b strings.Builder
	for _, k := range e.kids {
		if s, ok := k.(string); ok {
			b.WriteString(s)
		}
	}
	return b.String()
}

func count(e *element, space, local string) int {
	n := 0
	if e.space == space && e.local == local {
		n++
	}
	for _, k := range children(e) {
		n += count(k, space, local)
	}
	return n
}

// value is an attribute without a namespace; "" without it.
func value(e *element, local string) string {
	for _, a := range e.attrs {
		if a.space == "" && a.local == local {
			return a.value
		}
	}
	return ""
}

func algorithm(e *element) string { return value(e, "Algorithm") }

// base64Text decodes an element's text, in which white space may stand.
func base64Text(e *element) ([]byte, error) {
	b, err := base64.StdEncoding.Strict().DecodeString(strings.Join(strings.Fields(text(e)), ""))
	if err != nil || len(b) == 0 || len(children(e)) != 0 {
		return nil, refuseXML("%s is not base64", e.local)
	}
	return b, nil
}
