package differential

import (
	"bytes"
	"crypto/elliptic"
	"fmt"
	"math/big"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/confidential-cloud/phala/attest/collateral"
)

// otherHalf replaces s of the quote's signature by n - s, which verifies too.
func otherHalf(_ pool, _ *rand.Rand, c *sample) {
	o := offsets(c.quote)[0] + 4
	if o+64 > len(c.quote) {
		return
	}
	s := new(big.Int).SetBytes(c.quote[o+32 : o+64])
	n := elliptic.P256().Params().N
	if s.Cmp(n) < 0 {
		s.Sub(n, s).FillBytes(c.quote[o+32 : o+64])
	}
}

// editJSON changes a signed body: values, keys, case variants, repetitions, white
// space, the signature.
func editJSON(r *rand.Rand, body []byte) []byte {
	s := string(body)
	i := strings.LastIndex(s, `,"signature":"`)
	if i < 0 || s[0] != '{' {
		return body
	}
	name := s[2 : 2+strings.Index(s[2:], `"`)]
	inner, sig := s[len(name)+4:i], s[i+1:len(s)-1]
	env := func(in, more string) []byte { return []byte(`{"` + name + `":` + in + more + `,` + sig + `}`) }
	upper, lower := strings.ToUpper(name), strings.ToLower(name)
	switch r.IntN(12) {
	case 0:
		return env(strings.Replace(inner, "OutOfDate", "UpToDate", 1), "")
	case 1: // smuggled beside the signed object, edited
		return env(inner, `,"`+upper+`":`+smuggled(r, inner))
	case 2:
		return env(inner, `,"`+name+`":`+smuggled(r, inner))
	case 3:
		return []byte(`{"` + lower + `":` + inner + `,` + sig + `}`)
	case 4: // inside
		return env(strings.Replace(inner, `{`, `{"NEXTUPDATE":"2049-01-01T00:00:00Z",`, 1), "")
	case 5:
		return env(strings.Replace(inner, `":`, `": `, 1+r.IntN(3)), "")
	case 6:
		return []byte(strings.Replace(s, `,"signature":"`, `,"signature":"00`, 1))
	case 7:
		return env(inner, `,"comment":1`)
	case 8:
		return append(bytes.Clone(body), ' ')
	case 9:
		return append(bytes.Clone(body), `{}`...)
	case 10:
		return body[:r.IntN(len(body))]
	}
	out := bytes.Clone(body)
	out[r.IntN(len(out))] ^= 1 << r.IntN(7)
	return out
}

func smuggled(r *rand.Rand, inner string) string {
	for _, e := range [][2]string{{"OutOfDate", "UpToDate"}, {"Revoked", "UpToDate"}, {`"nextUpdate":"20`, `"nextUpdate":"29`}, {`"mrsigner":"0`, `"mrsigner":"1`}} {
		if r.IntN(2) == 0 {
			inner = strings.Replace(inner, e[0], e[1], 1)
		}
	}
	return inner
}

// donor is a set that was made elsewhere or at another time.
func (p pool) donor(r *rand.Rand) collateral.Set {
	s := p.scenes[r.IntN(len(p.scenes))]
	return []collateral.Set{s.set, s.old, s.next, p.foreign.set}[r.IntN(4)]
}

func elsewhere(p pool, r *rand.Rand, c *sample) {
	d := p.donor(r)
	switch r.IntN(4) {
	case 0:
		c.set.TCBInfo = d.TCBInfo
	case 1:
		c.set.QEIdentity = d.QEIdentity
	case 2:
		c.set.TCBInfo, c.set.QEIdentity = c.set.QEIdentity, c.set.TCBInfo
	case 3:
		c.set = d
	}
}

func issuerChain(p pool, r *rand.Rand, c *sample) {
	_, certs, _, ok := certificates(c.quote)
	if !ok || len(certs) < 3 {
		return
	}
	d := p.donor(r)
	signer, root := halves(c.set.TCBInfoIssuerChain)
	_, foreignRoot := halves(p.foreign.set.TCBInfoIssuerChain)
	chain := [][]byte{
		d.TCBInfoIssuerChain, slices.Concat(certs[0], certs[1]), slices.Concat(certs[1], certs[2]), slices.Concat(root, signer), signer,
		slices.Concat(signer, root, root), slices.Concat([]byte("junk\n"), signer, root), bytes.ReplaceAll(c.set.TCBInfoIssuerChain, []byte("\n"), []byte("\r\n")),
		c.set.PCKCRLIssuerChain, slices.Concat(signer, foreignRoot),
	}[r.IntN(10)]
	if r.IntN(2) == 0 {
		c.set.TCBInfoIssuerChain = chain
	} else {
		c.set.QEIdentityIssuerChain = chain
	}
}

// halves splits a chain of two.
func halves(chain []byte) (signer, root []byte) {
	const end = "-----END CERTIFICATE-----\n"
	i := bytes.Index(chain, []byte(end)) + len(end)
	return chain[:i], chain[i:]
}

func list(p pool, r *rand.Rand, c *sample) {
	d := p.donor(r)
	bit := func(b []byte) []byte {
		out := bytes.Clone(b)
		if len(out) > 0 {
			out[r.IntN(len(out))] ^= 1 << r.IntN(8)
		}
		return out
	}
	switch r.IntN(9) {
	case 0:
		c.set.PCKCRL, c.set.RootCRL = c.set.RootCRL, c.set.PCKCRL
	case 1:
		c.set.PCKCRL = d.PCKCRL
	case 2:
		c.set.RootCRL = d.RootCRL
	case 3:
		c.set.PCKCRL = bit(c.set.PCKCRL)
	case 4:
		c.set.RootCRL = bit(c.set.RootCRL)
	case 5:
		c.set.PCKCRL = append(bytes.Clone(c.set.PCKCRL), 0)
	case 6:
		c.set.RootCRL = append(bytes.Clone(c.set.RootCRL), 0)
	case 7:
		c.set.PCKCRL = nil
	case 8:
		c.set.RootCRL = c.set.PCKCRL
	}
}

func (s sample) String() string { return fmt.Sprintf("%s (quote of %d bytes)", s.label, len(s.quote)) }
