package simtee

import (
	"crypto"
	"crypto/hkdf"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/subtle"
	"encoding/binary"
	"fmt"
	"io"
	"math/big"
	"math/rand/v2"
	"slices"
	"sync"
)

// rsaBits is the size of AMD's keys. Four primes make a key of that size in a tenth of
// the time that two take; nobody can tell from the public half.
const (
	rsaBits   = 4096
	rsaPrimes = 4
)

// rsaRing holds the keys of one seed and their sound certificates, so that each is
// made once.
type rsaRing struct {
	mu    sync.Mutex
	keys  map[string]*rsa.PrivateKey
	certs map[string]*authorityKey
}

func newRing() *rsaRing {
	return &rsaRing{keys: map[string]*rsa.PrivateKey{}, certs: map[string]*authorityKey{}}
}

func (r *rsaRing) certified(name string) *authorityKey {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.certs[name]
}

func (r *rsaRing) keep(name string, k *authorityKey) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.certs[name] = k
}

func (r *rsaRing) key(seed []byte, name string) (*rsa.PrivateKey, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if k := r.keys[name]; k != nil {
		return k, nil
	}
	k, err := deriveRSA(seed, name)
	if err == nil {
		r.keys[name] = k
	}
	return k, err
}

// deriveRSA makes a key that is a function of the seed. It protects nothing: the
// vendor is simulated.
func deriveRSA(seed []byte, name string) (*rsa.PrivateKey, error) {
	key, err := hkdf.Key(sha256.New, seed, []byte("phala-simtee:v1"), "rsa:"+name, 32)
	if err != nil {
		return nil, err
	}
	stream := rand.NewChaCha8([32]byte(key))
	e := big.NewInt(65537)
	for {
		k := &rsa.PrivateKey{PublicKey: rsa.PublicKey{N: big.NewInt(1), E: 65537}}
		phi := big.NewInt(1)
		for len(k.Primes) < rsaPrimes {
			p, err := nextPrime(stream)
			if err != nil {
				return nil, err
			}
			k.Primes = append(k.Primes, p)
			k.N.Mul(k.N, p)
			phi.Mul(phi, new(big.Int).Sub(p, big.NewInt(1)))
		}
		k.D = new(big.Int).ModInverse(e, phi)
		if k.D == nil || k.N.BitLen() != rsaBits {
			continue
		}
		k.Precompute()
		return k, k.Validate()
	}
}

// nextPrime is the first prime from a random start whose top three bits are set, so
// that the product of four has its full length.
func nextPrime(r io.Reader) (*big.Int, error) {
	const size = rsaBits / rsaPrimes / 8
	b := make([]byte, size)
	if _, err := io.ReadFull(r, b); err != nil {
		return nil, err
	}
	b[0] |= 0xe0
	b[size-1] |= 1
	p, two := new(big.Int).SetBytes(b), big.NewInt(2)
	for !p.ProbablyPrime(10) {
		p.Add(p, two)
	}
	return p, nil
}

// repeatable signs the same bytes in the same way every time: the salt is made from
// the digest. It computes modulo each prime, which the library does for two only.
type repeatable struct{ *rsa.PrivateKey }

func (k repeatable) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	if pss, ok := opts.(*rsa.PSSOptions); !ok || pss.Hash != crypto.SHA384 || len(digest) != sha512.Size384 {
		return nil, fmt.Errorf("AMD's keys sign with PSS and SHA-384 only")
	}
	m := new(big.Int).SetBytes(encodePSS(digest))
	// Garner: x is the power modulo the product of the primes so far.
	x, product := new(big.Int), big.NewInt(1)
	for _, p := range k.Primes {
		d := new(big.Int).Mod(k.D, new(big.Int).Sub(p, big.NewInt(1)))
		h := new(big.Int).Exp(new(big.Int).Mod(m, p), d, p)
		h.Sub(h, x).Mul(h, new(big.Int).ModInverse(product, p)).Mod(h, p)
		x.Add(x, h.Mul(h, product))
		product.Mul(product, p)
	}
	return x.FillBytes(make([]byte, rsaBits/8)), nil
}

// encodePSS is EMSA-PSS (RFC 8017, 9.1.1) with a salt of the digest's size.
func encodePSS(digest []byte) []byte {
	salt := sha512.Sum384(append([]byte("phala-simtee pss salt:"), digest...))
	h := sha512.Sum384(slices.Concat(make([]byte, 8), digest, salt[:]))
	db := make([]byte, rsaBits/8-len(h)-1)
	db[len(db)-len(salt)-1] = 1
	copy(db[len(db)-len(salt):], salt[:])
	for i := 0; i < len(db); i += len(h) {
		mask := sha512.Sum384(binary.BigEndian.AppendUint32(h[:], uint32(i/len(h)))) //nolint:gosec // under 16
		subtle.XORBytes(db[i:], db[i:], mask[:min(len(mask), len(db)-i)])
	}
	db[0] &= 0x7f
	return append(append(db, h[:]...), 0xbc)
}
