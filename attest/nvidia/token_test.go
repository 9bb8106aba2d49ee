package nvidia_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/confidential-cloud/phala/attest/claim"
	"github.com/confidential-cloud/phala/attest/nvidia"
	"github.com/confidential-cloud/phala/attest/simtee/simdev"
	"github.com/confidential-cloud/phala/cvm"
)

type tokenScene struct {
	svc       *simdev.Service
	eat, jwks []byte
	p         nvidia.TokenPolicy
	at        time.Time
}

// newToken is accepted as it stands; edit changes what the service claims.
func newToken(t testing.TB, edit func(*simdev.Service)) *tokenScene {
	t.Helper()
	nonce := nvidia.NonceFor([]byte("report data"))
	svc := must(simdev.NewService("a", at, nonce))
	s := &tokenScene{svc: svc, jwks: must(svc.JWKS()), at: at.Add(time.Minute)}
	if edit != nil {
		edit(svc)
	}
	s.eat = must(svc.EAT())
	s.p = nvidia.TokenPolicy{Issuer: "https://nras.example", Nonce: nonce, MaxAge: 5 * time.Minute, Models: []string{"GH100 A01 GSP BROM"}, GPUs: 1}
	return s
}

func (s *tokenScene) verify() (nvidia.TokenClaims, error) {
	c, _, err := nvidia.VerifyToken(s.eat, s.jwks, s.p, s.at)
	return c, err
}

func TestTokenAccepted(t *testing.T) {
	c, err := newToken(t, nil).verify()
	if err != nil {
		t.Fatal(err)
	}
	if c.GPUs["GPU-0"].Driver != "550.54.15" || !c.Expires.Equal(at.Add(time.Hour)) {
		t.Fatalf("%+v", c)
	}
}

func gpuClaim(k string, v any) func(*simdev.Service) {
	return func(s *simdev.Service) { s.GPUs["GPU-0"][k] = v }
}

// unsigned is what NVIDIA's local verifier writes: alg none and no signature.
func unsigned(s *tokenScene) {
	var outer []json.RawMessage
	var head []string
	_ = json.Unmarshal(s.eat, &outer)
	_ = json.Unmarshal(outer[0], &head)
	parts := strings.Split(head[1], ".")
	none := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none"}`)) + "." + parts[1] + "."
	s.eat = bytes.Replace(s.eat, []byte(head[1]), []byte(none), 1)
}

// Number 61 of the negative list, the service's token: alg none, debug on, nonce not
// derived from the CPU evidence. With them, every other way to be refused.
func TestNegative61Token(t *testing.T) {
	other := must(simdev.NewService("b", at, nil))
	for name, tc := range map[string]struct {
		check string
		make  func(*simdev.Service)
		edit  func(*tokenScene)
	}{
		"alg none, unsigned":            {claim.TokenParse, nil, unsigned},
		"alg none, signed":              {claim.TokenParse, func(s *simdev.Service) { s.Header["alg"] = "none" }, nil},
		"alg HS384":                     {claim.TokenParse, func(s *simdev.Service) { s.Header["alg"] = "HS384" }, nil},
		"no alg":                        {claim.TokenParse, func(s *simdev.Service) { delete(s.Header, "alg") }, nil},
		"its own key in the header":     {claim.TokenParse, func(s *simdev.Service) { s.Header["jwk"] = map[string]any{} }, nil},
		"a critical header":             {claim.TokenParse, func(s *simdev.Service) { s.Header["crit"] = []string{"exp"} }, nil},
		"debug on":                      {claim.TokenDebug, gpuClaim("dbgstat", "enabled"), nil},
		"debug not said":                {claim.TokenDebug, func(s *simdev.Service) { delete(s.GPUs["GPU-0"], "dbgstat") }, nil},
		"no secure boot":                {claim.TokenDebug, gpuClaim("secboot", false), nil},
		"secure boot in words":          {claim.TokenDebug, gpuClaim("secboot", "true"), nil},
		"nonce not of the CPU evidence": {claim.TokenNonce, nil, func(s *tokenScene) { s.p.Nonce = nvidia.NonceFor([]byte("other")) }},
		"one GPU with another nonce":    {claim.TokenNonce, gpuClaim("eat_nonce", strings.Repeat("00", 32)), nil},
		"no nonce in the policy":        {claim.TokenNonce, nil, func(s *tokenScene) { s.p.Nonce = nil }},
		"no issuer in the policy":       {claim.TokenIssuer, nil, func(s *tokenScene) { s.p.Issuer = "" }},
		"another issuer":                {claim.TokenIssuer, gpuClaim("iss", "https://nras.example.org"), nil},
		"no age in the policy":          {claim.TokenFresh, nil, func(s *tokenScene) { s.p.MaxAge = 0 }},
		"too old":                       {claim.TokenFresh, nil, func(s *tokenScene) { s.at = at.Add(6 * time.Minute) }},
		"expired":                       {claim.TokenFresh, nil, func(s *tokenScene) { s.at, s.p.MaxAge = at.Add(time.Hour), 2*time.Hour }},
		"of the future":                 {claim.TokenFresh, nil, func(s *tokenScene) { s.at = at.Add(-time.Second) }},
		"without exp":                   {claim.TokenFresh, func(s *simdev.Service) { delete(s.GPUs["GPU-0"], "exp") }, nil},
		"no model in the policy":        {claim.TokenDevices, nil, func(s *tokenScene) { s.p.Models = nil }},
		"another model":                 {claim.TokenDevices, gpuClaim("hwmodel", "other"), nil},
		"no number of GPUs":             {claim.TokenDevices, nil, func(s *tokenScene) { s.p.GPUs = 0 }},
		"one GPU too few":               {claim.TokenDevices, nil, func(s *tokenScene) { s.p.GPUs = 2 }},
		"measurements failed":           {claim.TokenDevices, gpuClaim("measres", "fail"), nil},
		"signature not verified":        {claim.TokenDevices, gpuClaim("x-nvidia-gpu-attestation-report-signature-verified", false), nil},
		"nonce not matched":             {claim.TokenDevices, gpuClaim("x-nvidia-gpu-attestation-report-nonce-match", nil), nil},
		"no device named":               {claim.TokenDevices, gpuClaim("ueid", nil), nil},
		"overall failed":                {claim.TokenDevices, func(s *simdev.Service) { s.Overall["x-nvidia-overall-att-result"] = false }, nil},
		"a GPU of another answer": {claim.TokenDevices, func(s *simdev.Service) {
			s.Overall["submods"] = map[string]any{"GPU-0": []any{"DIGEST", []string{"SHA-256", "00"}}}
		}, nil},
		"no submodules named": {claim.TokenDevices, func(s *simdev.Service) { s.Overall["submods"] = map[string]any{} }, nil},
		"another signer":      {claim.TokenSignature, func(s *simdev.Service) { s.Key = other.Key }, nil},
		"unknown key id":      {claim.TokenSignature, func(s *simdev.Service) { s.Header["kid"] = "k2" }, nil},
		"no key id":           {claim.TokenSignature, func(s *simdev.Service) { delete(s.Header, "kid") }, nil},
		"no key set":          {claim.TokenSignature, nil, func(s *tokenScene) { s.jwks = nil }},
		"an empty key set":    {claim.TokenSignature, nil, func(s *tokenScene) { s.jwks = []byte(`{"keys":[]}`) }},
		"a key off the curve": {claim.TokenSignature, nil, func(s *tokenScene) { s.jwks = bytes.Replace(s.jwks, []byte(`"x":"`), []byte(`"x":"A`), 1) }},
		"a tail":              {claim.TokenParse, nil, func(s *tokenScene) { s.eat = append(s.eat, '1') }},
		"a GPU twice": {claim.TokenParse, nil, func(s *tokenScene) {
			s.eat = bytes.Replace(s.eat, []byte(`{"GPU-0"`), []byte(`{"gpu-0":"","GPU-0"`), 1)
		}},
		"too large": {claim.TokenParse, nil, func(s *tokenScene) { s.eat = make([]byte, nvidia.MaxToken+1) }},
	} {
		s := newToken(t, tc.make)
		if tc.edit != nil {
			tc.edit(s)
		}
		if _, err := s.verify(); !slices.Equal(failed(err), []string{tc.check}) {
			t.Errorf("%s: failed %v, want %s (%v)", name, failed(err), tc.check, err)
		}
	}
}

// A claim set that repeats a key, or differs from one only in case, is refused: a
// lenient decoder would let it override what was checked.
func TestTokenKeys(t *testing.T) {
	s := newToken(t, gpuClaim("DBGSTAT", "enabled"))
	if _, err := s.verify(); !slices.Equal(failed(err), []string{claim.TokenParse}) {
		t.Fatal(err)
	}
}

// Every single-bit flip of an accepted answer is refused.
func TestTokenBitFlips(t *testing.T) {
	s := newToken(t, nil)
	good := s.eat
	step := 29
	if os.Getenv("PHALA_LONG") != "" {
		step = 1
	}
	if testing.Short() {
		step *= 97
	}
	for i := 0; i < len(good)*8; i += step {
		s.eat = bytes.Clone(good)
		s.eat[i/8] ^= 1 << (i % 8)
		if _, err := s.verify(); err == nil {
			t.Fatalf("bit %d (%q) flipped is accepted", i, good[i/8])
		}
	}
}

// No panic; a refusal has its code.
func FuzzToken(f *testing.F) {
	s := newToken(f, nil)
	f.Add(s.eat, s.jwks)
	f.Add([]byte(`[["JWT","e30.e30."],{}]`), []byte(`{"keys":[{}]}`))
	f.Fuzz(func(t *testing.T, eat, jwks []byte) {
		_, checks, err := nvidia.VerifyToken(eat, jwks, s.p, s.at)
		if err == nil && !sameJSON(eat, s.eat) {
			t.Fatalf("a forgery is accepted: %q", eat)
		}
		if err != nil && cvm.CodeOf(err) == "" && len(checks) == 0 {
			t.Fatal("a refusal without checks")
		}
	})
}

// sameJSON: white space and escapes around the tokens are nobody's claim.
func sameJSON(a, b []byte) bool {
	var x, y any
	return json.Unmarshal(a, &x) == nil && json.Unmarshal(b, &y) == nil && reflect.DeepEqual(x, y)
}

func BenchmarkVerifyToken(b *testing.B) {
	s := newToken(b, nil)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.verify(); err != nil {
			b.Fatal(err)
		}
	}
}
