package simdev

import (
	"crypto/ecdsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"time"
)

// Service is a simulated verifier service: what it claims is edited in Overall and GPUs.
type Service struct {
	Key     *ecdsa.PrivateKey
	Header  map[string]any
	Overall map[string]any
	GPUs    map[string]map[string]any
}

// NewService makes a service that vouches for one GPU and a nonce, at a time.
func NewService(seed string, at time.Time, nonce []byte) (*Service, error) {
	k, err := Key("service-" + seed)
	if err != nil {
		return nil, err
	}
	std := map[string]any{"iss": "https://nras.example", "iat": at.Unix(), "nbf": at.Unix(), "exp": at.Add(time.Hour).Unix(), "eat_nonce": hex.EncodeToString(nonce)}
	s := &Service{Key: k, Header: map[string]any{"alg": "ES384", "kid": "k1", "typ": "JWT"}, Overall: maps.Clone(std), GPUs: map[string]map[string]any{}}
	s.Overall["x-nvidia-overall-att-result"] = true
	std["measres"], std["dbgstat"], std["secboot"], std["hwmodel"], std["ueid"] = "success", "disabled", true, "GH100 A01 GSP BROM", "1"
	std["x-nvidia-gpu-attestation-report-nonce-match"], std["x-nvidia-gpu-attestation-report-signature-verified"] = true, true
	std["x-nvidia-gpu-driver-version"], std["x-nvidia-gpu-vbios-version"] = "550.54.15", "96.00.74.00.01"
	s.GPUs["GPU-0"] = std
	return s, nil
}

// JWKS is the service's key set.
func (s *Service) JWKS() ([]byte, error) {
	p, err := s.Key.PublicKey.Bytes()
	if err != nil {
		return nil, err
	}
	b64 := base64.RawURLEncoding.EncodeToString
	return fmt.Appendf(nil, `{"keys":[{"kty":"EC","crv":"P-384","alg":"ES384","use":"sig","kid":"k1","x":"%s","y":"%s"}]}`, b64(p[1:49]), b64(p[49:])), nil
}

// JWT signs claims with ES384 whatever the header says.
func (s *Service) JWT(claims map[string]any) (string, error) {
	h, err := json.Marshal(s.Header)
	if err != nil {
		return "", err
	}
	c, err := json.Marshal(claims)
	if err != nil {
		return "", err
	}
	msg := base64.RawURLEncoding.EncodeToString(h) + "." + base64.RawURLEncoding.EncodeToString(c)
	sig, err := signRaw(s.Key, []byte(msg))
	return msg + "." + base64.RawURLEncoding.EncodeToString(sig), err
}

// EAT is the service's answer: [["JWT", overall], {"GPU-0": token}].
func (s *Service) EAT() ([]byte, error) {
	tokens, subs := map[string]string{}, map[string]any{}
	for name, c := range s.GPUs {
		t, err := s.JWT(c)
		if err != nil {
			return nil, err
		}
		d := sha256.Sum256([]byte(t))
		tokens[name], subs[name] = t, []any{"DIGEST", []string{"SHA-256", hex.EncodeToString(d[:])}}
	}
	overall := maps.Clone(s.Overall)
	if _, ok := overall["submods"]; !ok {
		overall["submods"] = subs
	}
	t, err := s.JWT(overall)
	if err != nil {
		return nil, err
	}
	return json.Marshal([]any{[]string{"JWT", t}, tokens})
}
