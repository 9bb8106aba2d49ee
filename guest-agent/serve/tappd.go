package serve

import (
	"context"
	"crypto/sha256"
	"crypto/sha3"
	"crypto/sha512"
	"hash"
	"net/http"

	legacy "golang.org/x/crypto/sha3"

	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/guest-agent/guestapi"
	"github.com/confidential-cloud/phala/internal/prpc"
	"github.com/confidential-cloud/phala/keys"
)

// defaultTag is the prefix of hashed report data when the caller names none.
const defaultTag = "app-data"

// Tappd is tappd.sock, the legacy socket, as every service shares it.
func (b *Backend) Tappd() http.Handler { return b.anyone().tappd() }

func (c *caller) tappd() http.Handler {
	b := c.b
	return service("Tappd.", map[string]prpc.Method{
		// A key of a path is the path's, whatever certificate comes with it.
		"DeriveKey": guard(c, func(r deriveRequest) ask {
			return ask{method: "DeriveKey", key: !r.RandomSeed, path: r.Path, tls: true, quote: r.RATLS}
		}, b.deriveKey),
		"DeriveK256Key": guard(c, func(r guestapi.KeyRequest) ask {
			return ask{method: "DeriveK256Key", key: true, path: r.Path, purpose: r.Purpose}
		}, b.deriveK256),
		"TdxQuote": guard(c, asks[tdxQuoteRequest](ask{method: "TdxQuote", quote: true}), b.tdxQuote),
		"RawQuote": guard(c, asks[guestapi.QuoteRequest](ask{method: "RawQuote", quote: true}), b.rawQuote),
		"Info":     prpc.NoArgs(b.Info), "Version": prpc.NoArgs(b.version),
	})
}

type deriveRequest struct {
	Path       string   `json:"path"`
	Subject    string   `json:"subject"`
	AltNames   []string `json:"alt_names"`
	RATLS      bool     `json:"usage_ra_tls"`
	ServerAuth bool     `json:"usage_server_auth"`
	ClientAuth bool     `json:"usage_client_auth"`
	RandomSeed bool     `json:"random_seed"`
}

// deriveKey gives the same key for the same path, unless random_seed is set.
func (b *Backend) deriveKey(ctx context.Context, r deriveRequest) (guestapi.TLSKey, error) {
	t := guestapi.TLSKeyRequest{Subject: r.Subject, AltNames: r.AltNames, RATLS: r.RATLS, ServerAuth: r.ServerAuth, ClientAuth: r.ClientAuth}
	if r.RandomSeed {
		return b.getTLSKey(ctx, t)
	}
	key, err := keys.DeriveP256(b.AppKey, []byte(r.Path))
	if err != nil {
		return guestapi.TLSKey{}, err
	}
	return b.certify(ctx, key, t)
}

type k256Key struct {
	Key   guestapi.Hex   `json:"k256_key"`
	Chain []guestapi.Hex `json:"k256_signature_chain"`
}

func (b *Backend) deriveK256(ctx context.Context, r guestapi.KeyRequest) (k256Key, error) {
	k, err := b.getKey(ctx, guestapi.KeyRequest{Path: r.Path, Purpose: r.Purpose, Algorithm: keys.Secp256k1})
	return k256Key{k.Key, k.SignatureChain}, err
}

type tdxQuoteRequest struct {
	ReportData    guestapi.Hex `json:"report_data"`
	HashAlgorithm string       `json:"hash_algorithm"`
	Prefix        string       `json:"prefix"`
}

type tdxQuote struct {
	Quote         guestapi.Hex `json:"quote"`
	EventLog      string       `json:"event_log"`
	HashAlgorithm string       `json:"hash_algorithm"`
	Prefix        string       `json:"prefix"`
}

func (b *Backend) tdxQuote(ctx context.Context, r tdxQuoteRequest) (tdxQuote, error) {
	rd, algorithm, prefix, err := hashedReportData(r.HashAlgorithm, r.Prefix, r.ReportData)
	if err != nil {
		return tdxQuote{}, err
	}
	q, err := b.quote(ctx, rd)
	return tdxQuote{q.Quote, q.EventLog, algorithm, prefix}, err
}

func (b *Backend) rawQuote(ctx context.Context, r guestapi.QuoteRequest) (tdxQuote, error) {
	return b.tdxQuote(ctx, tdxQuoteRequest{ReportData: r.ReportData, HashAlgorithm: "raw"})
}

// hashedReportData is hash(prefix ":" content), zero-padded on the right to 64
// bytes; raw takes 64 bytes as they are (dstack-core C.3).
func hashedReportData(algorithm, prefix string, content []byte) (rd [64]byte, alg, tag string, err error) {
	if algorithm == "" {
		algorithm = "sha512"
	}
	if algorithm == "raw" {
		if len(content) != len(rd) {
			return rd, "", "", cvm.Errorf(cvm.Invalid, "raw report data: want 64 bytes, got %d", len(content))
		}
		copy(rd[:], content)
		return rd, algorithm, "", nil
	}
	if prefix == "" {
		prefix = defaultTag
	}
	if algorithm == "keccak384" {
		copy(rd[:], keccak384(append([]byte(prefix+":"), content...)))
		return rd, algorithm, prefix, nil
	}
	h := hasher(algorithm)
	if h == nil {
		return rd, "", "", cvm.Errorf(cvm.Invalid, "unsupported hash algorithm: %s", algorithm)
	}
	h.Write([]byte(prefix + ":"))
	h.Write(content)
	copy(rd[:], h.Sum(nil))
	return rd, algorithm, prefix, nil
}

func hasher(name string) hash.Hash {
	switch name {
	case "sha256":
		return sha256.New()
	case "sha384":
		return sha512.New384()
	case "sha512":
		return sha512.New()
	case "sha3-256":
		return sha3.New256()
	case "sha3-384":
		return sha3.New384()
	case "sha3-512":
		return sha3.New512()
	case "keccak256":
		return legacy.NewLegacyKeccak256()
	case "keccak512":
		return legacy.NewLegacyKeccak512()
	}
	return nil
}
