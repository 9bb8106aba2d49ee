package oci

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"io"
	"os"
	"path/filepath"

	"github.com/confidential-cloud/phala/cvm"
)

// Signatures are in cosign's simple-signing form: a manifest tagged
// sha256-<digest>.sig whose layers are statements about a manifest's digest, each
// with a signature in an annotation. The manifest's digest fixes every file, so it
// fixes the os_image_hash; ours is in the statement as well.
const (
	signatureType = "application/vnd.dev.cosign.simplesigning.v1+json"
	signatureKey  = "dev.cosignproject.cosign/signature"
	statementType = "cosign container image signature"
	maxStatement  = 64 << 10
	maxSignatures = 16
)

// statement is what is signed.
type statement struct {
	Critical struct {
		Identity struct {
			Reference string `json:"docker-reference"`
		} `json:"identity"`
		Image struct {
			Digest string `json:"docker-manifest-digest"`
		} `json:"image"`
		Type string `json:"type"`
	} `json:"critical"`
	Optional map[string]any `json:"optional"`
}

// Key is a public key that may sign images.
type Key struct {
	Name   string // of its file, for people
	public crypto.PublicKey
}

func pemBlock(path, kind string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, cvm.Errorf(cvm.Invalid, "image key: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, 64<<10))
	if err != nil {
		return nil, cvm.Errorf(cvm.Invalid, "image key %s: %w", path, err)
	}
	block, rest := pem.Decode(b)
	if block == nil || block.Type != kind || len(bytes.TrimSpace(rest)) > 0 {
		return nil, cvm.Errorf(cvm.Invalid, "image key %s: want one PEM block of type %s", path, kind).
			WithFix("make a pair: openssl genpkey -algorithm ed25519 -out image.key && openssl pkey -in image.key -pubout -out image.pub")
	}
	return block.Bytes, nil
}

// LoadKey reads a public key (PEM, Ed25519 or ECDSA P-256).
func LoadKey(path string) (Key, error) {
	b, err := pemBlock(path, "PUBLIC KEY")
	if err != nil {
		return Key{}, err
	}
	pub, err := x509.ParsePKIXPublicKey(b)
	if err != nil || !supported(pub) {
		return Key{}, cvm.Errorf(cvm.Invalid, "image key %s: want an Ed25519 or ECDSA P-256 public key", path)
	}
	return Key{Name: filepath.Base(path), public: pub}, nil
}

func supported(pub crypto.PublicKey) bool {
	switch k := pub.(type) {
	case ed25519.PublicKey:
		return true
	case *ecdsa.PublicKey:
		return k.Curve == elliptic.P256()
	}
	return false
}

// LoadSigner reads a private key (PEM, PKCS 8, not encrypted).
func LoadSigner(path string) (crypto.Signer, error) {
	b, err := pemBlock(path, "PRIVATE KEY")
	if err != nil {
		return nil, err
	}
	k, err := x509.ParsePKCS8PrivateKey(b)
	s, ok := k.(crypto.Signer)
	if err != nil || !ok || !supported(s.Public()) {
		return nil, cvm.Errorf(cvm.Invalid, "image key %s: want an Ed25519 or ECDSA P-256 private key", path)
	}
	return s, nil
}

func (k Key) verify(message, sig []byte) bool {
	switch pub := k.public.(type) {
	case ed25519.PublicKey:
		return ed25519.Verify(pub, message, sig)
	case *ecdsa.PublicKey:
		sum := sha256.Sum256(message)
		return ecdsa.VerifyASN1(pub, sum[:], sig)
	}
	return false
}

func sign(s crypto.Signer, message []byte) ([]byte, error) {
	if _, ok := s.Public().(ed25519.PublicKey); ok {
		return s.Sign(rand.Reader, message, crypto.Hash(0))
	}
	sum := sha256.Sum256(message)
	return s.Sign(rand.Reader, sum[:], crypto.SHA256)
}

func signatureTag(sum [32]byte) string { return "sha256-" + hex.EncodeToString(sum[:]) + ".sig" }

func unsigned(format string, args ...any) error {
	return cvm.Errorf(cvm.Denied, format, args...).WithReason("image-signature").
		WithFix("push it with --sign by one of this node's image_keys; an image of somebody else is not for this node")
}

// parseStatement reads a signed statement about want; it may name an os_image_hash.
func parseStatement(b []byte, want [32]byte) (hash string, err error) {
	var s statement
	if err := json.Unmarshal(b, &s); err != nil {
		return "", unsigned("the signed statement is not JSON: %v", err)
	}
	if s.Critical.Type != statementType || s.Critical.Image.Digest != digestText(want) {
		return "", unsigned("the signature is over another image, %q", s.Critical.Image.Digest)
	}
	if v, there := s.Optional["os_image_hash"]; there {
		h, ok := v.(string)
		if !ok || h == "" {
			return "", unsigned("the signed statement's os_image_hash is not text")
		}
		return h, nil
	}
	return "", nil
}

// verifySignature finds a signature over the manifest by one of the keys. hash is
// the os_image_hash that the signer names, or "".
func (s *source) verifySignature(ctx context.Context, digest [32]byte, keys []Key) (by, hash string, err error) {
	b, _, err := s.manifest(ctx, signatureTag(digest))
	if cvm.CodeOf(err) == cvm.NotFound {
		return "", "", unsigned("the image %s has no signature", digestText(digest))
	}
	if err != nil {
		return "", "", err
	}
	var m manifest
	if err := json.Unmarshal(b, &m); err != nil || len(m.Layers) > maxSignatures {
		return "", "", unsigned("the signatures of %s cannot be read", digestText(digest))
	}
	failed := unsigned("no signature of %s is by one of the %d image keys", digestText(digest), len(keys))
	for _, l := range m.Layers {
		sig, err := base64.StdEncoding.DecodeString(l.Annotations[signatureKey])
		sum, derr := parseDigest(l.Digest)
		if err != nil || derr != nil || l.MediaType != signatureType || l.Size > maxStatement {
			continue
		}
		message, err := s.small(ctx, sum)
		if err != nil {
			return "", "", err
		}
		for _, k := range keys {
			if !k.verify(message, sig) {
				continue
			}
			if hash, err = parseStatement(message, digest); err == nil {
				return k.Name, hash, nil
			}
			failed = err
		}
	}
	return "", "", failed
}

// small fetches a small blob into memory.
func (s *source) small(ctx context.Context, sum [32]byte) ([]byte, error) {
	res, err := s.get(ctx, "blobs", digestText(sum), 0)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(io.LimitReader(res.Body, maxStatement+1))
	if err != nil {
		return nil, unreachable(s.repo.RegistryStr(), err)
	}
	if len(b) > maxStatement || sha256.Sum256(b) != sum {
		return nil, unsigned("the registry gave other bytes for the signature %s", digestText(sum))
	}
	return b, nil
}
