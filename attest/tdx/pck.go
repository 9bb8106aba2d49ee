package tdx

import (
	"bytes"
	"crypto/x509"

	"github.com/confidential-cloud/phala/attest/collateral"
	"github.com/confidential-cloud/phala/cvm"
)

// PCK is what the vendor certified about one processor.
type PCK struct {
	PPID   []byte // 16 bytes: names the processor package
	SGX    [16]uint8
	PCESVN uint16
	PCEID  [2]byte
	FMSPC  [6]byte
	CA     string // "platform": whose revocation list counts
}

const (
	cnRoot       = "Intel SGX Root CA"
	cnPlatformCA = "Intel SGX PCK Platform CA"
	cnPCK        = "Intel SGX PCK Certificate"
	cnTCBSigning = "Intel SGX TCB Signing"
)

// ParseChain reads the PCK chain inside the quote (leaf, CA, root) and the leaf's
// SGX extension. Signatures are not checked.
func (q *Quote) ParseChain() ([]*x509.Certificate, *PCK, error) {
	leafPEM, issuersPEM, err := q.splitChain()
	if err != nil {
		return nil, nil, err
	}
	i, err := parseIssuers(issuersPEM)
	if err != nil {
		return nil, nil, err
	}
	leaf, pck, err := parseLeaf(leafPEM)
	if err != nil {
		return nil, nil, err
	}
	return []*x509.Certificate{leaf, i.ca, i.root}, pck, nil
}

// splitChain cuts the PEM text after the leaf.
func (q *Quote) splitChain() (leaf, issuers []byte, err error) {
	const begin = "-----BEGIN CERTIFICATE-----"
	if len(q.chain) < len(begin) {
		return nil, nil, refuse("certificate chain of %d bytes", len(q.chain))
	}
	i := bytes.Index(q.chain[len(begin):], []byte(begin))
	if i < 1 || q.chain[len(begin)+i-1] != '\n' {
		return nil, nil, refuse("no certificate chain of three, one after another")
	}
	i += len(begin)
	return q.chain[:i], q.chain[i:], nil
}

func parseLeaf(text []byte) (*x509.Certificate, *PCK, error) {
	chain, err := collateral.ParseChain(text, 1)
	if err != nil {
		return nil, nil, err
	}
	if cn := chain[0].Subject.CommonName; cn != cnPCK {
		return nil, nil, refuse("certificate of %q, want %q", cn, cnPCK)
	}
	pck, err := parsePCK(chain[0])
	if err != nil {
		return nil, nil, err
	}
	pck.CA = "platform" // no other is admitted
	return chain[0], pck, nil
}

// FMSPC reads the processor model and CA of a quote without verifying anything:
// what a fetcher asks the vendor for.
func FMSPC(quote []byte) (fmspc [6]byte, ca string, err error) {
	q, err := ParseQuote(quote)
	if err != nil {
		return fmspc, "", err
	}
	_, pck, err := q.ParseChain()
	if err != nil {
		return fmspc, "", err
	}
	return pck.FMSPC, pck.CA, nil
}

// qeVendorIntel is the vendor id in the quote header.
func qeVendorIntel() []byte {
	return []byte{0x93, 0x9a, 0x72, 0x33, 0xf7, 0x9c, 0x4c, 0xa9, 0x94, 0x0a, 0x0d, 0xb3, 0x95, 0x7f, 0x06, 0x07}
}

// DeviceID is sha256 of the PPID.
func (p *PCK) DeviceID() cvm.DeviceID { return cvm.DeviceID(sha(p.PPID)) }

func sameBytes(a, b []byte) bool { return bytes.Equal(a, b) }
