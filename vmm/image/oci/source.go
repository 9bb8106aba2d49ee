package oci

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/keys"
)

// Login is for one registry that wants it; the zero value is anonymous.
type Login struct {
	Registry string // host[:port]; no other one is sent the password
	User     string
	Password keys.Secret
}

func (l Login) authenticator(registry string) authn.Authenticator {
	if l.User == "" || l.Registry != registry {
		return authn.Anonymous
	}
	return &authn.Basic{Username: l.User, Password: string(l.Password.Reveal())}
}

// parseRef reads "host/repo:tag" or "host/repo@sha256:...". Plain HTTP is for
// loopback and private addresses only.
func parseRef(ref string) (name.Reference, error) {
	r, err := name.ParseReference(ref, name.StrictValidation)
	if err == nil && strings.Contains(ref, "://") {
		err = errors.New("a reference has no scheme")
	}
	if err != nil {
		return nil, cvm.Errorf(cvm.Invalid, "image reference %q: %w", ref, err).WithReason("image-reference").
			WithFix("write it in full: host/repository@sha256:... or host/repository:tag")
	}
	reg := r.Context().Registry
	if reg.Scheme() == "http" && !near(reg.RegistryStr()) {
		return nil, cvm.Errorf(cvm.Invalid, "image reference %q: plain HTTP is for loopback and private addresses", ref).WithReason("image-reference").
			WithFix("use a registry with TLS")
	}
	return r, nil
}

// near reports whether host[:port] is loopback or private by its spelling.
func near(host string) bool {
	u := url.URL{Host: host}
	if u.Hostname() == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(u.Hostname())
	return err == nil && (ip.IsLoopback() || ip.IsPrivate() || ip.IsLinkLocalUnicast() || ip.IsUnspecified())
}

// guard keeps redirects in bounds: plain HTTP goes to the registry itself only (and
// to no public one), and a public registry leads nobody into a private network.
type guard struct {
	registry string
	next     http.RoundTripper
}

func (g guard) RoundTrip(r *http.Request) (*http.Response, error) {
	own := r.URL.Host == g.registry
	if r.URL.Scheme != "https" && !(own && near(g.registry)) || !own && near(r.URL.Host) {
		return nil, cvm.Errorf(cvm.Denied, "the registry %s leads to %s://%s, which is not allowed", g.registry, r.URL.Scheme, r.URL.Host).WithReason("image-redirect").
			WithFix("a registry may redirect to https addresses of the internet only")
	}
	return g.next.RoundTrip(r)
}

// source is one repository.
type source struct {
	repo name.Repository
	http *http.Client
}

// connect asks the registry how it wants to be spoken to.
func connect(ctx context.Context, repo name.Repository, login Login, base http.RoundTripper, action string) (*source, error) {
	if base == nil {
		t := http.DefaultTransport.(*http.Transport).Clone()
		t.ResponseHeaderTimeout = time.Minute
		base = t
	}
	rt, err := transport.NewWithContext(ctx, repo.Registry, login.authenticator(repo.RegistryStr()), guard{repo.RegistryStr(), base}, []string{repo.Scope(action)})
	if err != nil {
		return nil, unreachable(repo.RegistryStr(), err)
	}
	hops := func(_ *http.Request, via []*http.Request) error {
		if len(via) > 5 {
			return errors.New("over 5 redirects")
		}
		return nil
	}
	return &source{repo: repo, http: &http.Client{Transport: rt, CheckRedirect: hops}}, nil
}

// unreachable keeps a refusal of ours as it is.
func unreachable(registry string, err error) error {
	var ce *cvm.Error
	if errors.As(err, &ce) {
		return ce
	}
	return cvm.Errorf(cvm.Unavailable, "registry %s: %w", registry, err).WithReason("registry-unavailable").WithFix("check its address, the network and the login; then pull again")
}

// get opens kind ("manifests", "blobs") from byte at. The caller closes the body.
func (s *source) get(ctx context.Context, kind, ref string, at int64) (*http.Response, error) {
	u := url.URL{Scheme: s.repo.Scheme(), Host: s.repo.RegistryStr(), Path: "/v2/" + s.repo.RepositoryStr() + "/" + kind + "/" + ref}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, err
	}
	// What is hashed are the bytes as they are stored.
	req.Header.Set("Accept-Encoding", "identity")
	if kind == "manifests" {
		req.Header.Set("Accept", manifestType+", "+dockerType)
	}
	if at > 0 {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", at))
	}
	res, err := s.http.Do(req)
	if err != nil {
		return nil, unreachable(s.repo.RegistryStr(), err)
	}
	switch res.StatusCode {
	case http.StatusOK, http.StatusPartialContent, http.StatusRequestedRangeNotSatisfiable:
		return res, nil
	}
	_ = res.Body.Close()
	what := s.repo.Name() + " " + ref
	switch {
	case res.StatusCode == http.StatusNotFound:
		return nil, cvm.Errorf(cvm.NotFound, "the registry has no %s", what).WithReason("image-missing").WithFix("check the reference; was the image pushed?")
	case res.StatusCode == http.StatusUnauthorized || res.StatusCode == http.StatusForbidden:
		return nil, cvm.Errorf(cvm.Denied, "the registry refuses %s: %s", what, res.Status).WithReason("registry-denied").WithFix("configure the registry's user and password file")
	case res.StatusCode >= 500 || res.StatusCode == http.StatusTooManyRequests:
		return nil, cvm.Errorf(cvm.Unavailable, "the registry answers %s for %s", res.Status, what).WithReason("registry-unavailable").WithFix("pull again later")
	}
	return nil, cvm.Errorf(cvm.Invalid, "the registry answers %s for %s", res.Status, what).WithReason("image-refused")
}

// manifest fetches a manifest; by digest, it is compared with that.
func (s *source) manifest(ctx context.Context, ref string) (b []byte, sum [32]byte, err error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	res, err := s.get(ctx, "manifests", ref, 0)
	if err != nil {
		return nil, sum, err
	}
	defer res.Body.Close()
	b, err = io.ReadAll(io.LimitReader(res.Body, maxManifest+1))
	if err != nil {
		return nil, sum, unreachable(s.repo.RegistryStr(), err)
	}
	if len(b) > maxManifest {
		return nil, sum, refuse("the manifest %s is over %d bytes", ref, maxManifest)
	}
	sum = sha256.Sum256(b)
	if strings.HasPrefix(ref, "sha256:") && digestText(sum) != ref {
		return nil, sum, cvm.Errorf(cvm.Denied, "the registry gave a manifest with digest %s instead of %s", digestText(sum), ref).WithReason("image-digest").
			WithFix("the registry is broken or lies; use another one")
	}
	return b, sum, nil
}
