package nvidia

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"math/big"
	"slices"
	"strings"
	"time"

	"github.com/confidential-cloud/phala/attest/claim"
	"github.com/confidential-cloud/phala/attest/collateral"
	"github.com/confidential-cloud/phala/cvm"
)

// Limits of what is accepted from others.
const (
	MaxToken = 256 << 10 // bytes of a whole detached EAT
	maxGPUs  = 16
	maxKeys  = 32
)

// TokenPolicy is what a relying party admits of a verifier service. The zero value
// accepts nothing. Whoever admits a token believes the service, not the GPU.
type TokenPolicy struct {
	Issuer string        // exactly the token's iss, for example https://nras.attestation.nvidia.com
	Nonce  []byte        // what the GPUs were asked with, see NonceFor
	MaxAge time.Duration // since the token was issued; 0 refuses
	Models []string      // admitted hwmodel claims
	GPUs   int           // how many GPUs the token must speak of; 0 refuses
}

// TokenClaims is what a verified token says of each GPU.
type TokenClaims struct {
	Issuer  string           `json:"issuer"`
	Expires time.Time        `json:"expires"`
	GPUs    map[string]Token `json:"gpus"` // by submodule, for example "GPU-0"
}

// Token is the service's verdict on one GPU.
type Token struct {
	Model  string `json:"model"`
	UEID   string `json:"ueid"`
	Driver string `json:"driver"`
	VBIOS  string `json:"vbios"`
}

// VerifyToken checks the answer of NVIDIA's Remote Attestation Service: a detached
// EAT, [["JWT", overall], {"GPU-0": token, ...}], under the service's key set (a JWKS
// that the caller fetched over a channel it trusts). A rejection is a
// *claim.Rejection; the checks are listed either way.
//
// Only ES384 is accepted. The "detached EAT" of NVIDIA's local verifier is signed
// with nothing (alg none): it means something only inside the TD that made it.
func VerifyToken(eat, jwks []byte, p TokenPolicy, at time.Time) (TokenClaims, []claim.Check, error) {
	v := &tokenVerifier{p: p, at: at, rec: &claim.Recorder{Variant: claim.VariantGPUToken}}
	v.verify(eat, jwks)
	checks := v.rec.Checks()
	if !claim.OK(checks) {
		return TokenClaims{}, checks, &claim.Rejection{Checks: checks, Genuine: v.rec.Passed(claim.TokenParse, claim.TokenSignature)}
	}
	return v.out, checks, nil
}

type tokenVerifier struct {
	p   TokenPolicy
	at  time.Time
	rec *claim.Recorder
	out TokenClaims
}

func (v *tokenVerifier) verify(eat, jwks []byte) {
	e, err := parseEAT(eat)
	if !v.rec.Try(claim.TokenParse, err) {
		return
	}
	keys, err := parseKeys(jwks)
	if err == nil {
		for _, j := range append([]*jwt{e.overall}, slices.Collect(maps.Values(e.gpus))...) {
			if err = j.verify(keys); err != nil {
				break
			}
		}
	}
	if !v.rec.Try(claim.TokenSignature, err) {
		return
	}
	v.out.GPUs = map[string]Token{}
	v.standard("overall", e.overall.claims)
	if !e.overall.claims.yes("x-nvidia-overall-att-result") {
		v.rec.Fail(claim.TokenDevices, "", "", "the service's overall result is not true")
	}
	if v.p.GPUs <= 0 || len(e.gpus) != v.p.GPUs {
		v.rec.Fail(claim.TokenDevices, fmt.Sprint(v.p.GPUs), fmt.Sprint(len(e.gpus)), "another number of GPUs than the policy names")
	}
	v.rec.Try(claim.TokenDevices, e.submodules())
	for _, name := range slices.Sorted(maps.Keys(e.gpus)) {
		c := e.gpus[name].claims
		v.standard(name, c)
		v.device(name, c)
	}
	for _, n := range []string{claim.TokenIssuer, claim.TokenFresh, claim.TokenNonce, claim.TokenDevices, claim.TokenDebug} {
		v.rec.Pass(n, "") // a failure stays
	}
	v.out.Issuer = v.p.Issuer
}

// standard judges the claims that every token has.
func (v *tokenVerifier) standard(name string, c claims) {
	if iss := c.text("iss"); v.p.Issuer == "" || iss != v.p.Issuer {
		v.rec.Fail(claim.TokenIssuer, v.p.Issuer, clip(iss), name)
	}
	iat, exp, nbf := c.time("iat"), c.time("exp"), c.time("nbf")
	switch {
	case v.p.MaxAge <= 0:
		v.rec.Fail(claim.TokenFresh, "", "", "the policy names no maximum age")
	case iat.IsZero() || exp.IsZero() || nbf.IsZero():
		v.rec.Fail(claim.TokenFresh, "", "", name+": without iat, nbf and exp")
	case v.at.Before(nbf) || v.at.Before(iat) || !v.at.Before(exp) || v.at.Sub(iat) > v.p.MaxAge:
		v.rec.Fail(claim.TokenFresh, v.at.UTC().Format(time.RFC3339), iat.Format(time.RFC3339)+" to "+exp.Format(time.RFC3339), name)
	case v.out.Expires.IsZero() || exp.Before(v.out.Expires):
		v.out.Expires = exp
	}
	nonce, err := hex.DecodeString(c.text("eat_nonce"))
	if len(v.p.Nonce) != 32 || err != nil || !bytes.Equal(nonce, v.p.Nonce) {
		v.rec.Fail(claim.TokenNonce, short(v.p.Nonce), short(nonce), name+": the token was not made for this request")
	}
}

// device judges what the service says of one GPU.
func (v *tokenVerifier) device(name string, c claims) {
	t := Token{Model: c.text("hwmodel"), UEID: c.text("ueid"), Driver: c.text("x-nvidia-gpu-driver-version"), VBIOS: c.text("x-nvidia-gpu-vbios-version")}
	if !slices.Contains(v.p.Models, t.Model) {
		v.rec.Fail(claim.TokenDevices, fmt.Sprintf("one of %q", v.p.Models), clip(t.Model), name+": the policy does not admit this model")
	}
	if t.UEID == "" {
		v.rec.Fail(claim.TokenDevices, "a ueid", "none", name)
	}
	if got := c.text("measres"); got != "success" {
		v.rec.Fail(claim.TokenDevices, "measres success", clip(got), name)
	}
	for _, k := range []string{"x-nvidia-gpu-attestation-report-nonce-match", "x-nvidia-gpu-attestation-report-signature-verified"} {
		if !c.yes(k) {
			v.rec.Fail(claim.TokenDevices, k, "not true", name)
		}
	}
	if got := c.text("dbgstat"); got != "disabled" {
		v.rec.Fail(claim.TokenDebug, "dbgstat disabled", clip(got), name)
	}
	if !c.yes("secboot") {
		v.rec.Fail(claim.TokenDebug, "secboot", "not true", name)
	}
	v.out.GPUs[name] = t
}

// detached is a parsed, unverified detached EAT.
type detached struct {
	overall *jwt
	gpus    map[string]*jwt
}

func parseEAT(b []byte) (*detached, error) {
	if len(b) > MaxToken {
		return nil, refuseToken("%d bytes, at most %d", len(b), MaxToken)
	}
	if err := collateral.StrictKeys(b); err != nil {
		return nil, refuseToken("%w", err)
	}
	var outer []json.RawMessage
	var head []string
	var subs map[string]string
	if json.Unmarshal(b, &outer) != nil || len(outer) != 2 || json.Unmarshal(outer[0], &head) != nil || json.Unmarshal(outer[1], &subs) != nil {
		return nil, refuseToken("not a detached EAT")
	}
	if len(head) != 2 || head[0] != "JWT" || len(subs) > maxGPUs {
		return nil, refuseToken("want a JWT and at most %d submodules", maxGPUs)
	}
	e := &detached{gpus: map[string]*jwt{}}
	var err error
	if e.overall, err = parseJWT(head[1]); err != nil {
		return nil, err
	}
	for name, t := range subs {
		if e.gpus[name], err = parseJWT(t); err != nil {
			return nil, err
		}
	}
	return e, nil
}

// submodules checks that the overall token names exactly these GPU tokens, by digest.
func (e *detached) submodules() error {
	var want map[string]json.RawMessage
	if json.Unmarshal(e.overall.claims["submods"], &want) != nil || len(want) != len(e.gpus) {
		return refuseToken("the overall token names other submodules")
	}
	for name, j := range e.gpus {
		var ref []json.RawMessage
		var kind string
		var digest []string
		if json.Unmarshal(want[name], &ref) != nil || len(ref) != 2 || json.Unmarshal(ref[0], &kind) != nil || json.Unmarshal(ref[1], &digest) != nil {
			return refuseToken("the overall token does not name %.40q", name)
		}
		got := sha256.Sum256([]byte(j.raw))
		if kind != "DIGEST" || len(digest) != 2 || digest[0] != "SHA-256" || digest[1] != hex.EncodeToString(got[:]) {
			return refuseToken("%.40q is not the token that the overall token names", name)
		}
	}
	return nil
}

// jwt is a parsed, unverified JSON Web Token in compact form.
type jwt struct {
	raw    string
	kid    string
	signed string
	sig    []byte
	claims claims
}

func parseJWT(s string) (*jwt, error) {
	parts := strings.Split(s, ".")
	if len(parts) != 3 {
		return nil, refuseToken("a JWT of %d parts", len(parts))
	}
	var raw [3][]byte
	for i, p := range parts {
		var err error
		if raw[i], err = base64.RawURLEncoding.Strict().DecodeString(p); err != nil || strings.ContainsAny(p, "\r\n") {
			return nil, refuseToken("a JWT that is not base64url")
		}
	}
	head, err := parseClaims(raw[0])
	if err != nil {
		return nil, err
	}
	// What the header may say: everything else could change what a signature means.
	for k := range head {
		if !slices.Contains([]string{"alg", "kid", "typ"}, k) {
			return nil, refuseToken("header %.40q", k)
		}
	}
	if alg := head.text("alg"); alg != "ES384" || len(raw[2]) != signatureSize {
		return nil, refuseToken("alg %.40q with a signature of %d bytes, want ES384", alg, len(raw[2]))
	}
	j := &jwt{raw: s, kid: head.text("kid"), signed: parts[0] + "." + parts[1], sig: raw[2]}
	j.claims, err = parseClaims(raw[1])
	return j, err
}

func (j *jwt) verify(keys map[string]*ecdsa.PublicKey) error {
	k, ok := keys[j.kid]
	if !ok || j.kid == "" {
		return refuseToken("key %.80q is not in the key set", j.kid)
	}
	d := sha512.Sum384([]byte(j.signed))
	if !ecdsa.Verify(k, d[:], new(big.Int).SetBytes(j.sig[:48]), new(big.Int).SetBytes(j.sig[48:])) {
		return refuseToken("a signature does not match")
	}
	return nil
}

// parseKeys reads a JWKS: the keys of P-384 in it, by key id.
func parseKeys(b []byte) (map[string]*ecdsa.PublicKey, error) {
	if len(b) > MaxToken {
		return nil, refuseToken("a key set of %d bytes", len(b))
	}
	set, err := parseClaims(b)
	if err != nil {
		return nil, err
	}
	var list []claims
	if json.Unmarshal(set["keys"], &list) != nil || len(list) > maxKeys {
		return nil, refuseToken("not a key set")
	}
	out := map[string]*ecdsa.PublicKey{}
	for _, k := range list {
		if k.text("kty") != "EC" || k.text("crv") != "P-384" {
			continue
		}
		kid := k.text("kid")
		x, err1 := base64.RawURLEncoding.Strict().DecodeString(k.text("x"))
		y, err2 := base64.RawURLEncoding.Strict().DecodeString(k.text("y"))
		if err1 != nil || err2 != nil || len(x) != 48 || len(y) != 48 || kid == "" || out[kid] != nil {
			return nil, refuseToken("key %.80q of the key set is malformed or repeated", kid)
		}
		if out[kid], err = ecdsa.ParseUncompressedPublicKey(elliptic.P384(), slices.Concat([]byte{4}, x, y)); err != nil {
			return nil, refuseToken("key %.80q is not a point of P-384", kid)
		}
	}
	return out, nil
}

// claims is a JSON object whose keys are read exactly, not as encoding/json would.
type claims map[string]json.RawMessage

func parseClaims(b []byte) (claims, error) {
	if err := collateral.StrictKeys(b); err != nil {
		return nil, refuseToken("%w", err)
	}
	var c claims
	if err := json.Unmarshal(b, &c); err != nil || c == nil {
		return nil, refuseToken("not a JSON object")
	}
	return c, nil
}

// text is a string claim; "" without it.
func (c claims) text(k string) string {
	var s *string
	if json.Unmarshal(c[k], &s) != nil || s == nil {
		return ""
	}
	return *s
}

// yes reports whether a claim is the literal true.
func (c claims) yes(k string) bool { return string(bytes.TrimSpace(c[k])) == "true" }

// time is a NumericDate in whole seconds; zero without it.
func (c claims) time(k string) time.Time {
	var n *int64
	if json.Unmarshal(c[k], &n) != nil || n == nil || *n <= 0 || *n > 1<<40 {
		return time.Time{}
	}
	return time.Unix(*n, 0).UTC()
}

func refuseToken(format string, args ...any) error {
	return cvm.Errorf(cvm.Invalid, "GPU token: "+format, args...)
}
