package collateral

import (
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"maps"
	"math/big"

	"github.com/confidential-cloud/phala/cvm"
)

// Floor is how far a vendor's statements have come: numbers that must never go
// back. Collateral is valid for weeks, so that whoever serves it could otherwise
// hold a verifier at last month's. The zero Floor holds nobody. Its JSON form is
// an object of numbers.
//
// Keys begin with the hex sha256 of the root's SubjectPublicKeyInfo, so that one
// admitted root cannot move the floor of another:
// "<root>/tcb/<fmspc>" and "<root>/qe" hold evaluation data numbers,
// "<root>/crl/<authority key id>" the number of that issuer's revocation list.
type Floor map[string]*big.Int

// Check refuses a statement that stands below the floor. marks are what a set
// says (Marks).
func (f Floor) Check(marks Floor) error {
	for k, n := range marks {
		if least := f[k]; least != nil && n.Cmp(least) < 0 {
			return cvm.Errorf(cvm.Invalid, "collateral: %s is %s, seen before: %s", k[2*32+1:], n, least).
				WithReason("collateral-older").WithFix("the collateral service answers with older statements than before: ask another one")
		}
	}
	return nil
}

// Raise returns the floor lifted to what marks say. f is left as it is. Raise
// only by sets whose signatures were verified under an admitted root.
func (f Floor) Raise(marks Floor) Floor {
	out := maps.Clone(f)
	if out == nil {
		out = Floor{}
	}
	for k, n := range marks {
		if least := out[k]; least == nil || n.Cmp(least) > 0 {
			out[k] = n
		}
	}
	return out
}

// UnmarshalJSON reads a floor strictly: whole numbers from 0 on, at most 20 octets
// long (RFC 5280), under well-formed keys.
func (f *Floor) UnmarshalJSON(b []byte) error {
	if err := checkKeys(b); err != nil {
		return cvm.Errorf(cvm.Invalid, "floor: %w", err)
	}
	var m map[string]*big.Int
	if err := json.Unmarshal(b, &m); err != nil {
		return cvm.Errorf(cvm.Invalid, "floor: %w", err)
	}
	for k, n := range m {
		if len(k) < 2*32+2 || k[2*32] != '/' || len(k) > 256 {
			return cvm.Errorf(cvm.Invalid, "floor: key %.80q", k)
		}
		if n == nil || n.Sign() < 0 || n.BitLen() > 160 {
			return cvm.Errorf(cvm.Invalid, "floor: %.80q has no proper number", k)
		}
	}
	*f = m
	return nil
}

// Marks reads the numbers of a TDX set, under the root its TCB info names.
// Nothing is verified.
func Marks(s Set) (Floor, error) {
	t, err := ParseTCBInfo(s.TCBInfo)
	if err != nil {
		return nil, err
	}
	q, err := ParseQEIdentity(s.QEIdentity)
	if err != nil {
		return nil, err
	}
	chain, err := ParseChain(s.TCBInfoIssuerChain, 2)
	if err != nil {
		return nil, err
	}
	var lists []*CRL
	for _, der := range [][]byte{s.RootCRL, s.PCKCRL} {
		c, err := ParseCRL(der)
		if err != nil {
			return nil, err
		}
		lists = append(lists, c)
	}
	return MarksOf(chain[1], t, q, lists...), nil
}

// MarksOf is Marks for what is parsed already; t and q may be nil.
func MarksOf(root *x509.Certificate, t *TCBInfo, q *QEIdentity, lists ...*CRL) Floor {
	spki := SPKIHash(root)
	prefix := hex.EncodeToString(spki[:]) + "/"
	f := Floor{}
	if t != nil {
		f[prefix+"tcb/"+hex.EncodeToString(t.FMSPC[:])] = big.NewInt(int64(t.EvalNumber))
	}
	if q != nil {
		f[prefix+"qe"] = big.NewInt(int64(q.EvalNumber))
	}
	for _, c := range lists {
		n := c.list.Number
		if n == nil {
			n = new(big.Int) // a list without a number is older than any with one
		}
		f[prefix+"crl/"+hex.EncodeToString(c.list.AuthorityKeyId)] = n
	}
	return f
}
