package simdev

import (
	"bytes"
	"slices"
	"time"

	"github.com/confidential-cloud/phala/attest/nitro"
)

// Nitro is a simulated Nitro hypervisor: what it signs is edited in Document.
type Nitro struct {
	PKI      PKI
	Document nitro.Document // Certificate, Bundle and Signature are filled in by Sign
}

// NewNitro makes a hypervisor whose certificates are valid around at, and a document
// of that time: of an enclave, or of a NitroTPM.
func NewNitro(seed string, at time.Time, tpm bool) (*Nitro, error) {
	p, err := NewPKI(seed, at, []string{"i-0123-enc4567", "instance", "zone", "nitro-root"}, nil)
	if err != nil {
		return nil, err
	}
	n := &Nitro{PKI: p}
	n.Document = nitro.Document{TPM: tpm, ModuleID: "i-0123-enc4567", Digest: "SHA384", Timestamp: uint64(at.UnixMilli()), PCRs: map[int][]byte{}, //nolint:gosec // after 1970
		Keys: []string{"module_id", "digest", "timestamp", "pcrs", "certificate", "cabundle", "public_key", "user_data", "nonce"}}
	if tpm {
		n.Document.Keys[3] = "nitrotpm_pcrs"
	}
	for i := range 16 {
		n.Document.PCRs[i] = bytes.Repeat([]byte{byte(i + 1)}, 48)
		n.Document.PCROrder = append(n.Document.PCROrder, i)
	}
	return n, nil
}

// Sign makes the document's bytes.
func (n *Nitro) Sign() ([]byte, error) {
	d := n.Document
	if d.Certificate == nil {
		d.Certificate = n.PKI.Certs[0].Raw
	}
	if d.Bundle == nil {
		for _, c := range slices.Backward(n.PKI.DER()[1:]) {
			d.Bundle = append(d.Bundle, c)
		}
	}
	sig, err := signRaw(n.PKI.Keys[0], sigStructure(d))
	d.Signature = sig
	return EncodeDocument(d), err
}

func protected() []byte { return []byte{0xa1, 0x01, 0x38, 0x22} }

func sigStructure(d nitro.Document) []byte {
	b := appendText([]byte{0x84}, "Signature1")
	return appendByteString(append(appendByteString(b, protected()), 0x40), encodePayload(d))
}

// EncodeDocument writes a COSE_Sign1 with the members in the order of d.Keys.
func EncodeDocument(d nitro.Document) []byte {
	var b []byte
	if d.Tagged {
		b = append(b, 0xd2)
	}
	b = append(appendByteString(append(b, 0x84), protected()), 0xa0)
	return appendByteString(appendByteString(b, encodePayload(d)), d.Signature)
}

func encodePayload(d nitro.Document) []byte {
	b := appendHead(nil, 5, uint64(len(d.Keys)))
	for _, k := range d.Keys {
		b = appendText(b, k)
		switch k {
		case "module_id":
			b = appendText(b, d.ModuleID)
		case "digest":
			b = appendText(b, d.Digest)
		case "timestamp":
			b = appendHead(b, 0, d.Timestamp)
		case "pcrs", "nitrotpm_pcrs":
			b = appendHead(b, 5, uint64(len(d.PCROrder)))
			for _, i := range d.PCROrder {
				b = appendByteString(appendHead(b, 0, uint64(i)), d.PCRs[i]) //nolint:gosec // a register's number
			}
		case "certificate":
			b = appendByteString(b, d.Certificate)
		case "cabundle":
			b = appendHead(b, 4, uint64(len(d.Bundle)))
			for _, c := range d.Bundle {
				b = appendByteString(b, c)
			}
		case "public_key":
			b = appendOptional(b, d.PublicKey)
		case "user_data":
			b = appendOptional(b, d.UserData)
		case "nonce":
			b = appendOptional(b, d.Nonce)
		}
	}
	return b
}

// appendHead writes a CBOR head in its shortest form.
func appendHead(b []byte, major byte, n uint64) []byte {
	if n < 24 {
		return append(b, major<<5|byte(n))
	}
	size, info := 1, byte(24)
	for size < 8 && n>>(8*size) != 0 {
		size, info = size*2, info+1
	}
	b = append(b, major<<5|info)
	for i := size - 1; i >= 0; i-- {
		b = append(b, byte(n>>(8*i)))
	}
	return b
}

func appendByteString(b, v []byte) []byte { return append(appendHead(b, 2, uint64(len(v))), v...) }
func appendText(b []byte, v string) []byte {
	return append(appendHead(b, 3, uint64(len(v))), v...)
}

func appendOptional(b, v []byte) []byte {
	if v == nil {
		return append(b, 0xf6)
	}
	return appendByteString(b, v)
}
