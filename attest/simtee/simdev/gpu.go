package simdev

import (
	"bytes"
	"crypto/sha512"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strings"
	"time"

	"golang.org/x/crypto/ocsp"

	"github.com/confidential-cloud/phala/attest/nvidia"
)

// GPU is a simulated GPU in confidential computing mode with its vendor.
type GPU struct {
	PKI    PKI    // the report key's chain: key, device, model's CA, root
	RIMPKI PKI    // what signs reference values
	Driver string // for example "550.54.15"
	VBIOS  string // for example "96.00.74.00.01"
	FWID   [48]byte
	Report nvidia.Report // Nonce and Signature are filled in by Sign
}

// NewGPU makes a GPU with 64 measurements whose certificates are valid around at.
func NewGPU(seed string, at time.Time) (*GPU, error) {
	g := &GPU{Driver: "550.54.15", VBIOS: "96.00.74.00.01", FWID: sha512.Sum384([]byte("firmware of " + seed))}
	var err error
	tcb, err := tcbInfo(g.FWID)
	if err != nil {
		return nil, err
	}
	if g.PKI, err = NewPKI("gpu-"+seed, at, []string{"GPU AK", "GH100 A01 GSP BROM", "NVIDIA GH100 Identity", "NVIDIA Device Identity CA"}, func(i int, t *x509.Certificate) {
		if i == 0 {
			t.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 23, 133, 5, 4, 1}, Critical: true, Value: tcb}}
		}
	}); err != nil {
		return nil, err
	}
	if g.RIMPKI, err = NewPKI("rim-"+seed, at, []string{"RIM signer", "RIM CA", "RIM root"}, nil); err != nil {
		return nil, err
	}
	for i := range uint8(64) {
		m := sha512.Sum384([]byte{i})
		g.Report.Measurements = append(g.Report.Measurements, nvidia.Measurement{Index: i + 1, Type: 1, Value: m[:]})
	}
	vbios, err := hex.DecodeString(strings.ReplaceAll(g.VBIOS, ".", ""))
	if err != nil {
		return nil, err
	}
	g.Report.Opaque = []nvidia.Opaque{
		{Type: 3, Value: append([]byte(g.Driver), 0)},
		{Type: 6, Value: []byte{vbios[3], vbios[2], vbios[1], vbios[0], vbios[4], 0, 0, 0}},
		{Type: 11, Value: []byte{0xaa}},
		{Type: 20, Value: g.FWID[:]},
	}
	return g, nil
}

// tcbInfo is a DICE TcbInfo with a vendor and one firmware id.
func tcbInfo(fwid [48]byte) ([]byte, error) {
	type id struct {
		Alg    asn1.ObjectIdentifier
		Digest []byte
	}
	return asn1.Marshal(struct {
		Vendor string `asn1:"tag:0,utf8"`
		FWIDs  []id   `asn1:"tag:6"`
	}{"NVIDIA", []id{{asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 2}, fwid[:]}}})
}

// Sign makes the report for a nonce.
func (g *GPU) Sign(nonce []byte) ([]byte, error) {
	r := g.Report
	copy(r.Nonce[:], nonce)
	r.Signature = nil
	body := EncodeReport(r)
	sig, err := signRaw(g.PKI.Keys[0], body)
	return append(body, sig...), err
}

// EncodeReport writes SPDM request || response.
func EncodeReport(r nvidia.Report) []byte {
	b := append([]byte{0x11, 0xe0, 1, 0xff}, r.Nonce[:]...)
	var record, opaque []byte
	for _, m := range r.Measurements {
		n := uint16(len(m.Value)) //nolint:gosec // short
		record = binary.LittleEndian.AppendUint16(append(record, m.Index, 1), n+3)
		record = binary.LittleEndian.AppendUint16(append(record, m.Type), n)
		record = append(record, m.Value...)
	}
	for _, f := range r.Opaque {
		opaque = binary.LittleEndian.AppendUint16(opaque, f.Type)
		opaque = append(binary.LittleEndian.AppendUint16(opaque, uint16(len(f.Value))), f.Value...) //nolint:gosec // short
	}
	b = append(b, r.Slot, 0x11, 0x60, r.Param1, r.Param2, byte(len(r.Measurements)), byte(len(record)), byte(len(record)>>8), byte(len(record)>>16))
	b = append(append(b, record...), r.GPUNonce[:]...)
	b = append(binary.LittleEndian.AppendUint16(b, uint16(len(opaque))), opaque...) //nolint:gosec // short
	return append(b, r.Signature...)
}

// OCSP makes a "good" response for every certificate that the vendor issued, by its
// issuer; those in revoked are revoked.
func (g *GPU) OCSP(at time.Time, revoked ...*x509.Certificate) ([][]byte, error) {
	var out [][]byte
	for _, p := range []struct {
		pki  PKI
		from int
	}{{g.PKI, 1}, {g.RIMPKI, 0}} {
		for i := p.from; i < len(p.pki.Certs)-1; i++ {
			t := ocsp.Response{Status: ocsp.Good, SerialNumber: p.pki.Certs[i].SerialNumber, ThisUpdate: at.Add(-time.Hour), NextUpdate: at.Add(time.Hour)}
			for _, c := range revoked {
				if c.Equal(p.pki.Certs[i]) {
					t.Status, t.RevokedAt = ocsp.Revoked, at.Add(-time.Minute)
				}
			}
			der, err := ocsp.CreateResponse(p.pki.Certs[i+1], p.pki.Certs[i+1], t, p.pki.Keys[i+1])
			if err != nil {
				return nil, err
			}
			out = append(out, der)
		}
	}
	return out, nil
}

// DriverRIM and VBIOSRIM make reference values: measurements 0-31 are the driver's,
// the others the VBIOS's. edit, if not nil, changes the text before it is signed.
func (g *GPU) DriverRIM(edit func(string) string) ([]byte, error) {
	return g.rim("NV_GPU_DRIVER_"+g.Driver, g.Driver, 0, 32, edit)
}

// VBIOSRIM makes the reference values of the VBIOS.
func (g *GPU) VBIOSRIM(edit func(string) string) ([]byte, error) {
	return g.rim("NV_GPU_VBIOS_"+g.VBIOS, g.VBIOS, 32, 64, edit)
}

// rim writes a tag that is its own canonical form (C14N 1.0): what is hashed here
// does not rest on the verifier's canonicaliser.
func (g *GPU) rim(tag, version string, from, to int, edit func(string) string) ([]byte, error) {
	var b bytes.Buffer
	fmt.Fprintf(&b, `<SoftwareIdentity xmlns="http://standards.iso.org/iso/19770/-2/2015/schema.xsd" name="%[1]s" tagId="%[1]s" tagVersion="1" xml:lang="en">`, tag)
	fmt.Fprintf(&b, "\n  <Meta colloquialVersion=\"%s\" product=\"GH100\"></Meta>\n  <Payload xmlns:SHA384=\"http://www.w3.org/2001/04/xmldsig-more#sha384\">\n", version)
	for i := from; i < to; i++ {
		fmt.Fprintf(&b, `    <Resource active="True" alternatives="2" index="%d" name="Measurement_%[1]d" size="48" type="Measurement" SHA384:Hash0="%x" SHA384:Hash1="%096x"></Resource>`+"\n", i, g.reference(i), i)
	}
	b.WriteString("  </Payload>\n</SoftwareIdentity>")
	text := b.String()
	if edit != nil {
		text = edit(text)
	}
	return g.SignXML(text)
}

func (g *GPU) reference(i int) []byte {
	d := sha512.Sum384([]byte{byte(i)})
	return d[:]
}

// SignXML adds an enveloped signature to a canonical SoftwareIdentity document.
func (g *GPU) SignXML(text string) ([]byte, error) {
	const end = "</SoftwareIdentity>"
	digest := sha512.Sum384([]byte(text))
	head := `<SignedInfo xmlns="http://www.w3.org/2000/09/xmldsig#"`
	rest := `><CanonicalizationMethod Algorithm="http://www.w3.org/TR/2001/REC-xml-c14n-20010315"></CanonicalizationMethod>` +
		`<SignatureMethod Algorithm="http://www.w3.org/2001/04/xmldsig-more#ecdsa-sha384"></SignatureMethod>` +
		`<Reference URI=""><Transforms><Transform Algorithm="http://www.w3.org/2000/09/xmldsig#enveloped-signature"></Transform></Transforms>` +
		`<DigestMethod Algorithm="http://www.w3.org/2001/04/xmldsig-more#sha384"></DigestMethod><DigestValue>` +
		base64.StdEncoding.EncodeToString(digest[:]) + `</DigestValue></Reference></SignedInfo>`
	// The canonical subtree carries the root's xml:lang.
	sig, err := signRaw(g.RIMPKI.Keys[0], []byte(head+` xml:lang="en"`+rest))
	if err != nil {
		return nil, err
	}
	var certs strings.Builder
	for _, c := range g.RIMPKI.Certs[:len(g.RIMPKI.Certs)-1] {
		certs.WriteString("<X509Certificate>" + base64.StdEncoding.EncodeToString(c.Raw) + "</X509Certificate>")
	}
	whole := `<Signature xmlns="http://www.w3.org/2000/09/xmldsig#"><SignedInfo` + rest + "<SignatureValue>" + base64.StdEncoding.EncodeToString(sig) +
		"</SignatureValue><KeyInfo><X509Data>" + certs.String() + "</X509Data></KeyInfo></Signature>"
	return []byte(strings.TrimSuffix(text, end) + whole + end), nil
}
