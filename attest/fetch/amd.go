package fetch

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/confidential-cloud/phala/attest"
	"github.com/confidential-cloud/phala/attest/collateral"
	"github.com/confidential-cloud/phala/attest/sevsnp"
	"github.com/confidential-cloud/phala/cvm"
)

// chipQuestion is what a SEV-SNP report makes us ask AMD (AMD 57230, "VCEK
// Certificate and KDS Interface Specification").
type chipQuestion struct {
	product string
	signer  string // "vcek" or "vlek"
	chip    []byte // id: 64 bytes, 8 on Turin; nil where it is masked
	tcb     uint64 // reported
	hints   []*x509.Certificate
}

// reported reads what a report names. Nothing is verified.
func reported(ev attest.Evidence) (chipQuestion, error) {
	s, err := attest.Subject(ev)
	if err != nil {
		return chipQuestion{}, err
	}
	q := chipQuestion{product: s.Product, signer: s.Signer, chip: s.Chip, tcb: s.TCB}
	if len(ev.CertChain) > maxHints {
		return q, cvm.Errorf(cvm.Invalid, "collateral: the prover brings %d certificates, at most %d", len(ev.CertChain), maxHints)
	}
	for _, der := range ev.CertChain {
		// What cannot be read is no help, and nothing else: AMD is asked instead.
		if c, err := x509.ParseCertificate(der); err == nil && len(der) <= collateral.MaxCertificate {
			q.hints = append(q.hints, c)
		}
	}
	if q.chip == nil {
		q.hints = q.fitting()
	}
	return q, nil
}

// maxHints bounds the certificates that a prover may bring along.
const maxHints = 8

// askAMD gathers the chip's certificate, its issuers and the root's list.
func (c *Client) askAMD(ctx context.Context, ev attest.Evidence) (Answer, error) {
	q, err := reported(ev)
	if err != nil {
		return Answer{}, err
	}
	issuers := c.amdChain(q)
	chain, err := c.get(ctx, issuers)
	if err != nil {
		return Answer{}, err
	}
	certs, err := collateral.ParseChain(chain.body, 2)
	if err != nil {
		return Answer{}, err
	}
	all := []statement{issuers, c.amdCRL(q, certs), c.amdLeaf(q, certs)}
	got := []found{chain, {}, {}}
	if _, ok, err := c.held(all[2], c.cfg.Clock()); !ok || err != nil {
		c.hinted(all[2], q)
	}
	if err := c.gather(ctx, all, got, []int{1, 2}); err != nil {
		return Answer{}, err
	}
	a := c.answer(all, got)
	a.Subject = q.subject()
	a.Set = collateral.Set{AMD: &collateral.AMD{Leaf: got[2].body, Chain: chain.body, CRL: got[1].body}}
	return a, nil
}

// hinted keeps the chip's certificate from those that came with the report, if one
// of them is what AMD would give.
func (c *Client) hinted(s statement, q chipQuestion) {
	at := c.cfg.Clock()
	for _, h := range q.hints {
		p := &part{key: s.key, body: h.Raw, fetched: at, from: "prover"}
		if c.judge(s, p, at) == nil {
			c.keep(s, p, nil)
			return
		}
	}
}

func (q chipQuestion) subject() collateral.Subject {
	return collateral.Subject{Product: q.product, Signer: q.signer, Chip: q.chip, TCB: q.tcb}
}

func (q chipQuestion) base(what string) string {
	return "/" + q.signer + "/v1/" + q.product + "/" + what
}

// amdChain asks for ASK (or ASVK) and ARK.
func (c *Client) amdChain(q chipQuestion) statement {
	return statement{
		key: "amd/" + q.product + "/" + q.signer + "/chain", of: c.kds, paths: under(q.base("cert_chain")), lasting: true, decode: canonicalChain,
		check: func(p *part, at time.Time) (time.Time, collateral.Floor, error) {
			certs, err := collateral.ParseChain(p.body, 2)
			if err != nil {
				return time.Time{}, nil, err
			}
			ark := certs[1]
			if err := c.admitted(collateral.SPKIHash(ark)); err != nil {
				return time.Time{}, nil, err
			}
			if want := "ARK-" + q.product; ark.Subject.CommonName != want {
				return time.Time{}, nil, fmt.Errorf("the root is %q, want %q", ark.Subject.CommonName, want)
			}
			return issued(certs, at)
		},
	}
}

// issued checks that each certificate is current and signed by the next, the last
// by itself.
func issued(chain []*x509.Certificate, at time.Time) (time.Time, collateral.Floor, error) {
	ends := chain[0].NotAfter
	for i, c := range chain {
		issuer := chain[min(i+1, len(chain)-1)]
		switch {
		case at.Before(c.NotBefore) || at.After(c.NotAfter):
			return ends, nil, fmt.Errorf("%s is valid %s to %s", c.Subject.CommonName, c.NotBefore, c.NotAfter)
		case !bytes.Equal(c.RawIssuer, issuer.RawSubject):
			return ends, nil, fmt.Errorf("%s is not issued by %s", c.Subject.CommonName, issuer.Subject.CommonName)
		}
		if err := c.CheckSignatureFrom(issuer); err != nil {
			return ends, nil, fmt.Errorf("%s: %w", c.Subject.CommonName, err)
		}
		ends = earliest(ends, c.NotAfter)
	}
	return ends, nil, nil
}

// amdCRL asks for the root's list.
func (c *Client) amdCRL(q chipQuestion, issuers []*x509.Certificate) statement {
	return statement{
		key: "amd/" + q.product + "/" + q.signer + "/crl", of: c.kds, paths: under(q.base("crl")), decode: decodeCRL,
		check: func(p *part, at time.Time) (time.Time, collateral.Floor, error) {
			return listed(p.body, issuers[1], issuers[1], at)
		},
	}
}

// amdLeaf asks for the certificate of one chip at one TCB. It never changes, so that
// it is got once. AMD answers one of equal requests per 10 s.
func (c *Client) amdLeaf(q chipQuestion, issuers []*x509.Certificate) statement {
	chip, of := q.chipName(), c.chips
	if q.signer == "vlek" || q.chip == nil {
		// AMD gives a VLEK to its provider only, and a masked chip id names no VCEK: it must
		// come with the report.
		of = &services{}
	}
	return statement{
		key: "amd/" + q.product + "/" + q.signer + "/" + chip + "/" + fmt.Sprintf("%016x", q.tcb), of: of, lasting: true,
		paths: func(base string) []string { return []string{base + q.base(chip) + "?" + levels(q.product, q.tcb)} },
		check: func(p *part, at time.Time) (time.Time, collateral.Floor, error) {
			leaf, err := sevsnp.ParseLeaf(p.body)
			if err != nil {
				return time.Time{}, nil, err
			}
			if err := q.names(leaf); err != nil {
				return time.Time{}, nil, err
			}
			return issued(slices.Concat([]*x509.Certificate{leaf.Cert}, issuers), at)
		},
	}
}

// fitting is the first of the hints that is for the report's TCB, alone: what names a
// masked chip must not be what anybody can add to.
func (q chipQuestion) fitting() []*x509.Certificate {
	for i, h := range q.hints {
		if leaf, err := sevsnp.ParseLeaf(h.Raw); err == nil && q.names(leaf) == nil {
			return q.hints[i : i+1]
		}
	}
	return nil
}

// chipName tells chips apart. Those whose id is masked differ by the certificate
// that comes with their reports.
func (q chipQuestion) chipName() string {
	if q.chip != nil {
		return hex.EncodeToString(q.chip)
	}
	h := sha256.New()
	for _, c := range q.hints {
		h.Write(c.Raw)
	}
	return "masked-" + hex.EncodeToString(h.Sum(nil))
}

// levels are the query parameters that name a TCB, in the order of AMD's documents.
func levels(product string, tcb uint64) string {
	t, err := sevsnp.ParseTCB(product, tcb)
	if err != nil {
		t = sevsnp.TCB{} // reserved bits: AMD has no such certificate and will say so
	}
	var b strings.Builder
	add := func(name string, v uint8) {
		if b.Len() > 0 {
			b.WriteByte('&')
		}
		b.WriteString(name + "=" + strconv.Itoa(int(v)))
	}
	if product == sevsnp.Turin {
		add("fmcSPL", t.FMC)
	}
	add("blSPL", t.BootLoader)
	add("teeSPL", t.TEE)
	add("snpSPL", t.SNP)
	add("ucodeSPL", t.Microcode)
	return b.String()
}

// names checks that a certificate is the one of the question: its chip and its TCB.
// attest.Verify judges the same again, and much else.
func (q chipQuestion) names(leaf *sevsnp.Leaf) error {
	kind := map[uint8]string{sevsnp.KeyVCEK: "vcek", sevsnp.KeyVLEK: "vlek"}[leaf.Kind]
	switch {
	case kind != q.signer || leaf.Product != q.product:
		return fmt.Errorf("the certificate is a %s of %s, want a %s of %s", kind, leaf.Product, q.signer, q.product)
	case leaf.TCB.Value(q.product) != q.tcb:
		return fmt.Errorf("the certificate is for TCB %#016x, the report states %#016x", leaf.TCB.Value(q.product), q.tcb)
	case q.signer == "vcek" && q.chip != nil && !bytes.Equal(leaf.HWID, q.chip):
		return errors.New("the certificate is of another chip")
	}
	return nil
}
