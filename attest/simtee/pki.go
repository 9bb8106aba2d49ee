package simtee

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"math/big"
	"time"
)

// Names of keys and certificates; they enter the derivations. DO NOT CHANGE.
const (
	certRoot = "root"
	certCA   = "pck-ca"
	certTCB  = "tcb-signing"
	certPCK  = "pck"
	keyAK    = "attestation-key"
	keySeal  = "seal"
	idPPID   = "ppid"
)

// The platform's security version numbers.
const (
	pceSVN       = 11
	moduleMajor  = 1
	moduleMinor  = 5
	qeSVN        = 4
	qeProdID     = 2
	evalNumber   = 17
	fmspcHex     = "508060000000" // no letters, so that case-sensitive verifiers agree
	otherFMSPC   = "508060000001"
	pceIDHex     = "0000"
	otherPCEID   = "0100"
	organization = "SIMULATED TEE (proves nothing)"
)

func sgxSVN() [16]byte { return [16]byte{7, 7, 2, 2, 3, 1, 0, 5} }
func tdxSVN() [16]byte { return [16]byte{moduleMinor, moduleMajor, 2} }

// derive makes n bytes of the machine's own for a label.
func (h *Hardware) derive(label string, n int) ([]byte, error) {
	return hkdf.Key(sha256.New, h.seed, []byte("phala-simtee:v1"), label+"\x00"+h.cfg.Machine, n)
}

// key derives a P-256 key: the first candidate that is a valid scalar. The
// vendor's keys do not depend on the machine.
func (h *Hardware) key(name string) (*ecdsa.PrivateKey, error) {
	label := "key:" + name
	if name == certPCK || name == keyAK {
		label += "\x00" + h.cfg.Machine
	}
	b, err := hkdf.Key(sha256.New, h.seed, []byte("phala-simtee:v1"), label, 8*32)
	if err != nil {
		return nil, err
	}
	for i := 0; i < len(b); i += 32 {
		if k, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), b[i:i+32]); err == nil {
			return k, nil
		}
	}
	return nil, fmt.Errorf("no valid key for %s", name)
}

// makePKI builds the vendor's certificates and the machine's PCK certificate.
// Everything is a function of the seed: signatures are deterministic (RFC 6979).
func (h *Hardware) makePKI() error {
	h.keys, h.certs, h.pem = map[string]*ecdsa.PrivateKey{}, map[string]*x509.Certificate{}, map[string][]byte{}
	for _, n := range []string{certRoot, certCA, certTCB, certPCK, keyAK} {
		k, err := h.key(n)
		if err != nil {
			return err
		}
		h.keys[n] = k
	}
	var err error
	if h.ppid, err = h.derive(idPPID, 16); err != nil {
		return err
	}
	sgx, err := h.sgxExtension()
	if err != nil {
		return err
	}
	signer := h.cfg.Faults.SignerName
	if signer == "" {
		signer = "Intel SGX TCB Signing"
	}
	caUsage := x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	for _, c := range []struct {
		name, issuer, cn string
		tmpl             x509.Certificate
	}{
		{certRoot, certRoot, "Intel SGX Root CA", x509.Certificate{IsCA: true, MaxPathLen: 1, KeyUsage: caUsage}},
		{certCA, certRoot, "Intel SGX PCK Platform CA", x509.Certificate{IsCA: true, MaxPathLen: 0, MaxPathLenZero: true, KeyUsage: caUsage}},
		{certTCB, certRoot, signer, x509.Certificate{KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageContentCommitment}},
		{certPCK, certCA, "Intel SGX PCK Certificate", x509.Certificate{
			KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageContentCommitment, ExtraExtensions: []pkix.Extension{sgx}}},
	} {
		if err := h.certify(c.name, c.issuer, c.cn, c.tmpl); err != nil {
			return fmt.Errorf("certificate %s: %w", c.name, err)
		}
	}
	return nil
}

func (h *Hardware) certify(name, issuer, cn string, t x509.Certificate) error {
	key := h.keys[name]
	spki, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		return err
	}
	id := sha256.Sum256(spki)
	t.SerialNumber = new(big.Int).SetBytes(id[:16])
	t.Subject = pkix.Name{CommonName: cn, Organization: []string{organization}}
	t.NotBefore = time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)
	t.NotAfter = time.Date(2049, 12, 31, 23, 59, 59, 0, time.UTC)
	t.BasicConstraintsValid = true
	t.SubjectKeyId = id[:20]
	t.SignatureAlgorithm = x509.ECDSAWithSHA256
	t.CRLDistributionPoints = []string{"http://simulated.invalid/IntelSGXRootCA.der"}
	parent := &t
	if name == issuer {
		t.AuthorityKeyId = t.SubjectKeyId
	} else {
		parent = h.certs[issuer]
	}
	der, err := x509.CreateCertificate(nil, &t, parent, &key.PublicKey, deterministic{h.keys[issuer]})
	if err != nil {
		return err
	}
	if h.certs[name], err = x509.ParseCertificate(der); err != nil {
		return err
	}
	h.pem[name] = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	return nil
}

type sgxItem struct {
	ID    asn1.ObjectIdentifier
	Value any
}

// sgxExtension is the PCK certificate's description of the processor.
func (h *Hardware) sgxExtension() (pkix.Extension, error) {
	base := asn1.ObjectIdentifier{1, 2, 840, 113741, 1, 13, 1}
	oid := func(n ...int) asn1.ObjectIdentifier { return append(append(asn1.ObjectIdentifier{}, base...), n...) }
	svn := sgxSVN()
	var tcb []sgxItem
	for i, v := range svn {
		tcb = append(tcb, sgxItem{oid(2, i+1), int(v)})
	}
	tcb = append(tcb, sgxItem{oid(2, 17), pceSVN}, sgxItem{oid(2, 18), svn[:]})
	instance, err := h.derive("platform-instance", 16)
	if err != nil {
		return pkix.Extension{}, err
	}
	fmspc, err := hex.DecodeString(h.cfg.FMSPC)
	if err != nil {
		return pkix.Extension{}, err
	}
	der, err := asn1.Marshal([]sgxItem{
		{oid(1), h.ppid},
		{oid(2), tcb},
		{oid(3), []byte{0, 0}},
		{oid(4), fmspc},
		{oid(5), asn1.Enumerated(1)},
		{oid(6), instance},
		{oid(7), []sgxItem{{oid(7, 1), true}, {oid(7, 2), false}, {oid(7, 3), true}}},
	})
	return pkix.Extension{Id: base, Value: der}, err
}
