package serve

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"net/http"
	"os"
	"strings"

	"github.com/confidential-cloud/phala/attest"
	"github.com/confidential-cloud/phala/attest/eventlog"
	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/guest-agent/guestapi"
	"github.com/confidential-cloud/phala/internal/prpc"
	"github.com/confidential-cloud/phala/internal/rpc"
	"github.com/confidential-cloud/phala/keys"
	"github.com/confidential-cloud/phala/kms/kmsapi"
	"github.com/confidential-cloud/phala/ratls"
)

// signPath and signPurpose are the key of Sign.
const (
	signPath    = "vms"
	signPurpose = "signing"
)

// gpuEvidence is where the image leaves the GPU's boot-time evidence.
const gpuEvidence = "/run/nvidia-gpu-attestation/attestation.out"

// Dstack is dstack.sock as every service shares it.
func (b *Backend) Dstack() http.Handler { return b.anyone().dstack() }

func (c *caller) dstack() http.Handler {
	b := c.b
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+guestapi.PathEvidence, rpc.Handle(func(r *http.Request, q guestapi.EvidenceRequest) (guestapi.Evidence, error) {
		a := ask{method: "Evidence", quote: true}
		if _, err := c.may(a); err != nil {
			b.count(c, a, "", outcomeRefused)
			return guestapi.Evidence{}, err
		}
		return b.PublicEvidence(r.Context(), q.Nonce, q.Bound)
	}))
	mux.HandleFunc("GET "+guestapi.PathKMS, rpc.Handle(func(*http.Request, struct{}) (guestapi.KMSInfo, error) {
		if b.KMS.RootSPKI == "" {
			return guestapi.KMSInfo{}, cvm.Errorf(cvm.Precondition, "this app has no KMS (key provider none)")
		}
		return b.KMS, nil
	}))
	mux.HandleFunc("GET "+guestapi.PathKeyRequests, rpc.Handle(func(*http.Request, struct{}) ([]guestapi.KeyRequests, error) {
		return b.Requests(), nil
	}))
	mux.HandleFunc("/", service("DstackGuest.", map[string]prpc.Method{
		"Info": prpc.NoArgs(b.Info), "Version": prpc.NoArgs(b.version), "GpuInfo": prpc.NoArgs(b.gpuInfo), "Verify": prpc.Unary(b.verify),
		"GetTlsKey": guard(c, func(r guestapi.TLSKeyRequest) ask { return ask{method: "GetTlsKey", tls: true, quote: r.RATLS} }, b.getTLSKey),
		"GetKey": guard(c, func(r guestapi.KeyRequest) ask {
			return ask{method: "GetKey", key: true, path: r.Path, purpose: r.Purpose}
		}, b.getKey),
		"GetQuote": guard(c, asks[guestapi.QuoteRequest](ask{method: "GetQuote", quote: true}), b.getQuote),
		"Attest":   guard(c, asks[guestapi.QuoteRequest](ask{method: "Attest", quote: true}), b.attest),
		"Sign":     guard(c, asks[signRequest](ask{method: "Sign", sign: true}), b.sign),
	}))
	return mux
}

type versionInfo struct {
	Version string `json:"version"`
	Rev     string `json:"rev"`
}

func (b *Backend) version(context.Context) (versionInfo, error) {
	return versionInfo{Version, Rev}, nil
}

type gpuInfo struct {
	Attestation string `json:"attestation"`
}

func (b *Backend) gpuInfo(context.Context) (gpuInfo, error) {
	f, err := os.ReadFile(gpuEvidence)
	if errors.Is(err, os.ErrNotExist) {
		return gpuInfo{}, nil
	}
	return gpuInfo{string(f)}, err
}

func (b *Backend) getTLSKey(ctx context.Context, r guestapi.TLSKeyRequest) (guestapi.TLSKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return guestapi.TLSKey{}, err
	}
	return b.certify(ctx, key, r)
}

func (b *Backend) certify(ctx context.Context, key *ecdsa.PrivateKey, r guestapi.TLSKeyRequest) (k guestapi.TLSKey, err error) {
	c := kmsapi.CertConfig{Subject: r.Subject, AltNames: r.AltNames, ServerAuth: r.ServerAuth, ClientAuth: r.ClientAuth, AppInfo: r.AppInfo}
	if r.NotBefore != nil {
		c.NotBefore = *r.NotBefore
	}
	if r.NotAfter != nil {
		c.NotAfter = *r.NotAfter
	}
	if r.NotBefore != nil && r.NotAfter != nil && *r.NotBefore >= *r.NotAfter {
		return k, cvm.Errorf(cvm.Invalid, "not_before must be earlier than not_after")
	}
	if r.RATLS {
		spki, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
		if err != nil {
			return k, err
		}
		ev, err := b.Evidence(ctx, ratls.ReportData(spki))
		if err != nil {
			return k, err
		}
		if c.Evidence, err = ev.Strip().Marshal(); err != nil {
			return k, err
		}
	}
	if k.CertificateChain, err = b.Sign(ctx, key, c); err != nil {
		return k, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return k, err
	}
	k.Key = string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	return k, nil
}

// appCert is the certificate that Info shows: client-auth, with evidence, made once.
// The first Info already carries it; when signing fails, Info goes without.
func (b *Backend) appCert(ctx context.Context) string {
	b.mu.Lock()
	have := b.cert
	b.mu.Unlock()
	if have != "" {
		return have
	}
	k, err := b.getTLSKey(ctx, guestapi.TLSKeyRequest{Subject: "demo-cert", RATLS: true, ClientAuth: true, AppInfo: true})
	if err != nil {
		b.Log.Warn("no certificate for Info", "err", err)
		return ""
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.cert = strings.Join(k.CertificateChain, "\n")
	return b.cert
}

func (b *Backend) getKey(_ context.Context, r guestapi.KeyRequest) (guestapi.Key, error) {
	if r.Algorithm == keys.Secp256k1Prehashed {
		return guestapi.Key{}, cvm.Errorf(cvm.Invalid, "Unsupported algorithm")
	}
	key, err := keys.KeyPath(b.AppKey, r.Path)
	if err != nil {
		return guestapi.Key{}, err
	}
	pub, err := keys.PublicKey(r.Algorithm, key)
	if err != nil {
		return guestapi.Key{}, err
	}
	sig, err := keys.SignKey(b.AppKey, r.Purpose, pub)
	if err != nil {
		return guestapi.Key{}, err
	}
	return guestapi.Key{Key: key.Reveal(), SignatureChain: []guestapi.Hex{sig, b.AppSig}}, nil
}

// reportData pads to 64 bytes on the right.
func reportData(h guestapi.Hex) (rd [64]byte, err error) {
	if len(h) > len(rd) {
		return rd, cvm.Errorf(cvm.Invalid, "Report data is too long")
	}
	copy(rd[:], h)
	return rd, nil
}

func (b *Backend) getQuote(ctx context.Context, r guestapi.QuoteRequest) (guestapi.Quote, error) {
	rd, err := reportData(r.ReportData)
	if err != nil {
		return guestapi.Quote{}, err
	}
	return b.quote(ctx, rd)
}

func (b *Backend) quote(ctx context.Context, rd [64]byte) (q guestapi.Quote, err error) {
	ev, err := b.Evidence(ctx, rd)
	if err != nil {
		return q, err
	}
	if ev.Variant == cvm.VariantSNP {
		return q, notTDX()
	}
	return b.quoteOf(ev)
}

func (b *Backend) quoteOf(ev attest.Evidence) (q guestapi.Quote, err error) {
	log, err := eventlog.EncodeJSON(ev.EventLog)
	if err != nil {
		return q, err
	}
	q = guestapi.Quote{Quote: ev.Quote, EventLog: string(log), ReportData: ev.ReportData[:], VMConfig: b.VMConfig}
	if b.QuoteAttestation {
		ev.Encoding = attest.EncodingV1 // the reference's simulator gives msgpack here, whatever Attest gives
		q.Attestation, err = ev.Marshal()
	}
	return q, err
}

type attestation struct {
	Attestation guestapi.Hex `json:"attestation"`
}

func (b *Backend) attest(ctx context.Context, r guestapi.QuoteRequest) (attestation, error) {
	rd, err := reportData(r.ReportData)
	if err != nil {
		return attestation{}, err
	}
	ev, err := b.Evidence(ctx, rd)
	if err != nil {
		return attestation{}, err
	}
	a, err := ev.Marshal()
	return attestation{a}, err
}

type signRequest struct {
	Algorithm string       `json:"algorithm"`
	Data      guestapi.Hex `json:"data"`
}

type signature struct {
	Signature      guestapi.Hex   `json:"signature"`
	SignatureChain []guestapi.Hex `json:"signature_chain"`
	PublicKey      guestapi.Hex   `json:"public_key"`
}

func (b *Backend) sign(_ context.Context, r signRequest) (s signature, err error) {
	key, err := keys.KeyPath(b.AppKey, signPath)
	if err != nil {
		return s, err
	}
	sig, err := keys.Sign(r.Algorithm, key, r.Data)
	if err != nil {
		return s, err
	}
	kind := r.Algorithm
	if kind == keys.Secp256k1Prehashed {
		kind = keys.Secp256k1
	}
	pub, err := keys.PublicKey(kind, key)
	if err != nil {
		return s, err
	}
	chain, err := keys.SignKey(b.AppKey, signPurpose, pub)
	if err != nil {
		return s, err
	}
	return signature{Signature: sig, SignatureChain: []guestapi.Hex{sig, chain, b.AppSig}, PublicKey: pub}, nil
}

type verifyRequest struct {
	Algorithm string       `json:"algorithm"`
	Data      guestapi.Hex `json:"data"`
	Signature guestapi.Hex `json:"signature"`
	PublicKey guestapi.Hex `json:"public_key"`
}

type verdict struct {
	Valid bool `json:"valid"`
}

func (b *Backend) verify(_ context.Context, r verifyRequest) (verdict, error) {
	ok, err := keys.VerifySignature(r.Algorithm, r.PublicKey, r.Data, r.Signature)
	return verdict{ok}, err
}
