package api

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/confidential-cloud/phala/api/store"
	"github.com/confidential-cloud/phala/cvm"
)

// A request with an Idempotency-Key is done once: asked again within a day it gets
// the same answer, and another request with the same key is refused. Keys are the
// credential's own. Answers are stored sealed under a key that comes from the
// credential, which is not stored: they may hold a commit token.

const maxIdempotencyKey = 255

// idempotent is the middleware; it stands behind authenticate.
func (s *Server) idempotent(hc huma.Context, next func(huma.Context)) {
	key, secret := hc.Header("Idempotency-Key"), credential(hc)
	if key == "" || secret == "" || who(hc.Context()).UserID == 0 || hc.Method() != http.MethodPost && hc.Method() != http.MethodPatch {
		next(hc)
		return
	}
	if len(key) > maxIdempotencyKey {
		refuse(hc, fail(http.StatusUnprocessableEntity, errBadRequest, cvm.Invalid, "idempotency-key", fmt.Sprintf("Idempotency-Key: at most %d characters", maxIdempotencyKey)))
		return
	}
	body, err := io.ReadAll(io.LimitReader(hc.BodyReader(), maxRequest+1))
	if err != nil {
		refuse(hc, text(http.StatusBadRequest, "the request's body ended early"))
		return
	}
	u := hc.URL()
	request := digestOf(hc.Method(), u.Path, u.RawQuery, hc.Header("X-Prepare-Only"), hc.Header("X-Compose-Hash"), hc.Header("X-Transaction-Hash"), string(body))
	scope := digestOf("idempotency", secret, key)
	seen, fresh, err := s.store.Reserve(hc.Context(), scope, request)
	switch {
	case err != nil:
		refuse(hc, s.answer(hc.Context(), err))
	case fresh:
		s.recorded(&recorder{request: hc, in: bytes.NewReader(body)}, next, scope, request, secret)
	case seen.Request != request:
		refuse(hc, fail(http.StatusConflict, "", cvm.Conflict, "idempotency-key-reused", "this Idempotency-Key belongs to another request", "use a new key for a new request"))
	case seen.Status == 0:
		refuse(hc, fail(http.StatusConflict, "", cvm.Conflict, "in-progress", "the first request with this Idempotency-Key is still being answered", "ask again in a moment"))
	default:
		s.replay(hc, seen, scope, secret)
	}
}

// recorded answers a request and stores what it was answered. A failure of ours is
// forgotten, so that the request can be tried again.
func (s *Server) recorded(r *recorder, next func(huma.Context), scope, digest [32]byte, secret string) {
	ctx := context.WithoutCancel(r.Context())
	a := store.Answer{}
	defer func() {
		if err := s.store.Answered(ctx, scope, a); err != nil {
			s.log.Error("storing an idempotent answer", "err", err)
		}
	}()
	next(r)
	if r.status != 0 && r.status < http.StatusInternalServerError {
		a = store.Answer{Request: digest, Status: r.status, Body: seal(secret, scope, r.kind, r.out.Bytes())}
	}
}

func (s *Server) replay(hc huma.Context, a store.Answer, scope [32]byte, secret string) {
	kind, body, err := unseal(secret, scope, a.Body)
	if err != nil {
		refuse(hc, s.answer(hc.Context(), err))
		return
	}
	if kind != "" {
		hc.SetHeader("Content-Type", kind)
	}
	hc.SetHeader("Idempotency-Replayed", "true")
	hc.SetStatus(a.Status)
	_, _ = hc.BodyWriter().Write(body)
}

func refuse(hc huma.Context, err error) {
	status := http.StatusInternalServerError
	if e, ok := err.(huma.StatusError); ok { //nolint:errorlint // made here, or by answer
		status = e.GetStatus()
	}
	hc.SetHeader("Content-Type", "application/json")
	hc.SetStatus(status)
	_ = json.NewEncoder(hc.BodyWriter()).Encode(err)
}

// digestOf hashes parts with their lengths.
func digestOf(parts ...string) (out [32]byte) {
	h := sha256.New()
	for _, p := range parts {
		fmt.Fprintf(h, "%d:%s", len(p), p)
	}
	return [32]byte(h.Sum(nil))
}

// request is huma.Context by another name: embedded, its method Context stays one.
type request = interface{ huma.Context }

// recorder is a request whose body was read, and its answer's copy.
type recorder struct {
	request
	in     io.Reader
	out    bytes.Buffer
	status int
	kind   string
}

// Unwrap lets huma find the adapter's context.
func (r *recorder) Unwrap() huma.Context { return r.request }

// BodyReader is huma.Context.
func (r *recorder) BodyReader() io.Reader { return r.in }

// SetStatus is huma.Context.
func (r *recorder) SetStatus(code int) {
	r.status = code
	r.request.SetStatus(code)
}

// Status is huma.Context.
func (r *recorder) Status() int { return r.status }

// SetHeader is huma.Context.
func (r *recorder) SetHeader(name, value string) {
	if name == "Content-Type" {
		r.kind = value
	}
	r.request.SetHeader(name, value)
}

// BodyWriter is huma.Context.
func (r *recorder) BodyWriter() io.Writer { return io.MultiWriter(r.request.BodyWriter(), &r.out) }

// aead is for one answer: the key comes from the credential and the scope.
func aead(secret string, scope [32]byte) (cipher.AEAD, error) {
	k, err := hkdf.Key(sha256.New, []byte(secret), scope[:], "phala idempotent answer v1", 32)
	if err != nil {
		return nil, fmt.Errorf("deriving a key: %w", err)
	}
	b, err := aes.NewCipher(k)
	if err != nil {
		return nil, fmt.Errorf("deriving a key: %w", err)
	}
	return cipher.NewGCMWithRandomNonce(b)
}

func seal(secret string, scope [32]byte, kind string, body []byte) []byte {
	g, err := aead(secret, scope)
	if err != nil {
		return nil // then it does not open
	}
	plain, _ := json.Marshal(sealed{kind, body})
	return g.Seal(nil, nil, plain, nil)
}

type sealed struct {
	Kind string `json:"kind"`
	Body []byte `json:"body"`
}

func unseal(secret string, scope [32]byte, box []byte) (string, []byte, error) {
	g, err := aead(secret, scope)
	if err != nil {
		return "", nil, err
	}
	plain, err := g.Open(nil, nil, box, nil)
	if err != nil {
		return "", nil, fmt.Errorf("opening a stored answer: %w", err)
	}
	var v sealed
	if err := json.Unmarshal(plain, &v); err != nil {
		return "", nil, fmt.Errorf("opening a stored answer: %w", err)
	}
	return v.Kind, v.Body, nil
}

// credential is the key that a request was sent with.
func credential(hc huma.Context) string {
	if k := hc.Header("X-API-Key"); k != "" {
		return k
	}
	b, _ := strings.CutPrefix(hc.Header("Authorization"), "Bearer ")
	return strings.TrimSpace(b)
}
