// Package simdev makes GPU, Nitro and TPM evidence in the vendors' formats under
// roots of its own: what tests of attest/nvidia, attest/nitro, attest/tpm and
// attest/composite sign, replay, alter and forge. It proves nothing about hardware.
package simdev

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"time"
)

// PKI is one chain of certificates with its keys, leaf first.
type PKI struct {
	Certs []*x509.Certificate
	Keys  []*ecdsa.PrivateKey
}

// DER lists the chain's certificates, leaf first.
func (p PKI) DER() [][]byte {
	var out [][]byte
	for _, c := range p.Certs {
		out = append(out, c.Raw)
	}
	return out
}

// Root is the sha256 of the root's SubjectPublicKeyInfo.
func (p PKI) Root() [32]byte {
	return sha256.Sum256(p.Certs[len(p.Certs)-1].RawSubjectPublicKeyInfo)
}

// Key derives a P-384 key from a seed.
func Key(seed string) (*ecdsa.PrivateKey, error) {
	b := sha512.Sum384([]byte("phala-simdev:v1:" + seed))
	return ecdsa.ParseRawPrivateKey(elliptic.P384(), b[:])
}

// NewPKI makes a chain of P-384 certificates, leaf first, valid from an hour before
// at to 24 hours after it. The seed decides every key; edit, if not nil, changes the
// template of certificate i before it is signed.
func NewPKI(seed string, at time.Time, names []string, edit func(i int, t *x509.Certificate)) (PKI, error) {
	p := PKI{Certs: make([]*x509.Certificate, len(names)), Keys: make([]*ecdsa.PrivateKey, len(names))}
	for i := len(names) - 1; i >= 0; i-- {
		k, err := Key(seed + "/" + names[i])
		if err != nil {
			return p, err
		}
		p.Keys[i] = k
		spki := sha256.Sum256(k.X.Bytes()) //nolint:staticcheck // an identifier, not arithmetic
		t := &x509.Certificate{
			SerialNumber: new(big.Int).SetBytes(spki[:8]),
			Subject:      pkix.Name{CommonName: names[i], Organization: []string{"SIMULATED (proves nothing)"}},
			SubjectKeyId: spki[:20], NotBefore: at.Add(-time.Hour), NotAfter: at.Add(24 * time.Hour),
			BasicConstraintsValid: true, IsCA: i > 0, KeyUsage: x509.KeyUsageDigitalSignature,
			SignatureAlgorithm: x509.ECDSAWithSHA384,
		}
		if i > 0 {
			t.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
		}
		if edit != nil {
			edit(i, t)
		}
		parent, signer := t, k
		if i < len(names)-1 {
			parent, signer = p.Certs[i+1], p.Keys[i+1]
		}
		der, err := x509.CreateCertificate(nil, t, parent, k.Public(), signer)
		if err != nil {
			return p, err
		}
		if p.Certs[i], err = x509.ParseCertificate(der); err != nil {
			return p, err
		}
	}
	return p, nil
}

// CRLs makes one revocation list of each issuer of the chain, current at a time;
// revoked certificates are named in their issuer's.
func (p PKI) CRLs(at time.Time, revoked ...*x509.Certificate) ([][]byte, error) {
	var out [][]byte
	for i := 1; i < len(p.Certs); i++ {
		t := &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: at.Add(-time.Hour), NextUpdate: at.Add(time.Hour)}
		for _, c := range revoked {
			if c.CheckSignatureFrom(p.Certs[i]) == nil {
				t.RevokedCertificateEntries = append(t.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: c.SerialNumber, RevocationTime: at.Add(-time.Minute)})
			}
		}
		der, err := x509.CreateRevocationList(nil, t, p.Certs[i], p.Keys[i])
		if err != nil {
			return nil, err
		}
		out = append(out, der)
	}
	return out, nil
}

// signRaw signs sha384 of msg: r || s, 96 bytes.
func signRaw(k *ecdsa.PrivateKey, msg []byte) ([]byte, error) {
	h := sha512.Sum384(msg)
	der, err := k.Sign(nil, h[:], hashSHA384)
	if err != nil {
		return nil, err
	}
	return rawSignature(der)
}
