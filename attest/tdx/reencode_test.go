package tdx

import (
	"bytes"
	"encoding/binary"
	"slices"
	"testing"
)

// encode writes a parsed quote back from its parts. The QE id in the header (20
// bytes that nothing rests on) is taken from the signed bytes.
func (q *Quote) encode() []byte {
	le := binary.LittleEndian
	out := le.AppendUint16(nil, q.Version)
	out = le.AppendUint32(le.AppendUint16(out, keyTypeP256), teeTypeTDX)
	out = slices.Concat(out, make([]byte, 4), q.vendor, q.signed[28:headerSize])
	body := q.Body.encode()
	if q.Version == 5 {
		typ := uint16(bodyTypeTD10)
		if len(body) == bodySize15 {
			typ = bodyTypeTD15
		}
		out = le.AppendUint32(le.AppendUint16(out, typ), uint32(len(body)))
	}
	out = append(out, body...)
	inner := slices.Concat(q.report, q.reportSig, le.AppendUint16(nil, uint16(len(q.auth))), q.auth)
	inner = slices.Concat(le.AppendUint32(le.AppendUint16(inner, certTypePCK), uint32(len(q.chain))), q.chain)
	data := slices.Concat(q.signature, q.key)
	data = slices.Concat(le.AppendUint32(le.AppendUint16(data, certTypeQE), uint32(len(inner))), inner)
	return append(le.AppendUint32(out, uint32(len(data))), data...)
}

func (b Body) encode() []byte {
	le := binary.LittleEndian
	out := slices.Concat(b.TEETCBSVN[:], b.MRSeam[:], b.MRSignerSeam[:])
	for _, v := range []uint64{b.SeamAttributes, b.TDAttributes, b.XFAM} {
		out = le.AppendUint64(out, v)
	}
	out = slices.Concat(out, b.MRTD[:], b.MRConfigID[:], b.MROwner[:], b.MROwnerConfig[:])
	for _, r := range b.RTMR {
		out = append(out, r[:]...)
	}
	out = append(out, b.ReportData[:]...)
	if b.TD15 {
		out = slices.Concat(out, b.TEETCBSVN2[:], b.MRServiceTD[:])
	}
	return out
}

// smallQuote is a quote of the right shape that nobody signed.
func smallQuote(version uint16, td15 bool) []byte {
	q := &Quote{Version: version, Body: Body{TD15: td15, XFAM: 3}, signed: make([]byte, headerSize), signature: make([]byte, 64), key: make([]byte, 64),
		report: make([]byte, reportSize), reportSig: make([]byte, 64), auth: []byte{1, 2}, chain: []byte("PEM"), vendor: qeVendorIntel()}
	return q.encode()
}

// What is accepted re-encodes to the same bytes, but for zero padding.
func FuzzQuoteReencodes(f *testing.F) {
	for _, b := range [][]byte{smallQuote(4, false), smallQuote(5, false), smallQuote(5, true)} {
		if q, err := ParseQuote(b); err != nil || !bytes.Equal(q.encode(), b) {
			f.Fatalf("the seed does not parse to itself: %v", err)
		}
		f.Add(b)
		f.Add(append(b, 0, 0))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		q, err := ParseQuote(b)
		if err != nil {
			return
		}
		if again := q.encode(); !bytes.Equal(again, b[:q.Size()]) || len(bytes.Trim(b[q.Size():], "\x00")) != 0 {
			t.Fatalf("%d bytes re-encode to %d others", len(b), len(again))
		}
	})
}
