package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/pelletier/go-toml/v2"

	"github.com/confidential-cloud/phala/api/cloudapi"
	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/internal/profile"
)

// project is phala.toml: what the public CLI knows; other keys are ignored, as there.
type project struct {
	ID            string `toml:"id"`
	UUID          string `toml:"uuid"`
	AppID         string `toml:"app_id"`
	InstanceID    string `toml:"instance_id"`
	Name          string `toml:"name"`
	Profile       string `toml:"profile"`
	ComposeFile   string `toml:"compose_file"`
	EnvFile       string `toml:"env_file"`
	PublicLogs    *bool  `toml:"public_logs"`
	PublicSysinfo *bool  `toml:"public_sysinfo"`
	Listed        *bool  `toml:"listed"`
	GatewayDomain string `toml:"gateway_domain"`
	GatewayPort   any    `toml:"gateway_port"` // a number or its text
}

func (p project) gatewayPort() string {
	if p.GatewayPort == nil {
		return ""
	}
	return fmt.Sprint(p.GatewayPort)
}

func (p project) cvm() string {
	for _, s := range []string{p.ID, p.UUID, p.AppID, p.InstanceID, p.Name} {
		if s != "" {
			return s
		}
	}
	return ""
}

// project reads ./phala.toml; none is an empty one.
func (a *app) project() (p project, err error) {
	path := filepath.Join(a.Workdir, "phala.toml")
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return p, nil
	} else if err != nil {
		return p, err
	}
	if err := toml.NewDecoder(bytes.NewReader(b)).Decode(&p); err != nil {
		return p, cvm.Errorf(cvm.Invalid, "%s: %w", path, err)
	}
	return p, nil
}

// session is a login in use.
type session struct {
	dir     string
	name    string // of the profile
	login   profile.Login
	extra   profile.Extra
	project project
	api     *cloudapi.Client
}

// session resolves profile, key and API prefix: flag, then environment, then file.
func (a *app) session() (*session, error) {
	dir, err := profile.Dir(a.Getenv)
	if err != nil {
		return nil, err
	}
	s := &session{dir: dir}
	if s.project, err = a.project(); err != nil {
		return nil, err
	}
	creds, err := profile.LoadCredentials(dir)
	if err != nil {
		return nil, err
	}
	extras, err := profile.LoadExtras(dir)
	if err != nil {
		return nil, err
	}
	want := first(a.profile, s.project.Profile, creds.Current, "default")
	var known bool
	if s.name, s.login, known = creds.Find(want); !known && a.profile != "" {
		return nil, cvm.Errorf(cvm.NotFound, "no profile %q", a.profile).WithFix("phala profiles lists them")
	}
	s.extra = extras.Profiles[s.name]
	prefix := first(a.Getenv("PHALA_CLOUD_API_PREFIX"), s.login.APIPrefix, profile.DefaultAPI)
	key := first(a.token, a.Getenv("PHALA_CLOUD_API_KEY"), s.login.Token)
	s.api, err = newClient(prefix, key)
	return s, err
}

// loggedIn is session for commands that need a key.
func (a *app) loggedIn() (*session, error) {
	s, err := a.session()
	if err != nil {
		return nil, err
	}
	if s.api.Key == "" {
		return nil, cvm.Errorf(cvm.Unauthenticated, "you are not logged in").WithReason(reasonNotLoggedIn).
			WithFix("phala login --url http://HOST:PORT/api/v1 (for a cloud on this machine: make up prepares the login)")
	}
	return s, nil
}

func newClient(prefix, key string) (*cloudapi.Client, error) {
	prefix = strings.TrimRight(prefix, "/")
	u, err := url.Parse(prefix)
	if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
		return nil, cvm.Errorf(cvm.Invalid, "%q is not an API address", prefix).
			WithFix("give the whole prefix, for example http://127.0.0.1:8730/api/v1")
	}
	if u.User != nil {
		return nil, cvm.Errorf(cvm.Invalid, "the API address must not carry a password").WithFix("use phala login, or PHALA_CLOUD_API_KEY")
	}
	if u.Scheme == "http" && key != "" && !loopback(u.Hostname()) {
		return nil, cvm.Errorf(cvm.Denied, "%s is plain http to another machine: your API key would be readable on the way", prefix).
			WithReason(reasonPlainHTTP).WithFix("use https://, or a tunnel that ends on this machine")
	}
	h := &http.Client{Transport: apiTransport(), CheckRedirect: func(*http.Request, []*http.Request) error {
		// A redirect could carry the key to another place.
		return http.ErrUseLastResponse
	}}
	return &cloudapi.Client{Base: prefix, Key: key, HTTP: h}, nil
}

func apiTransport() http.RoundTripper {
	return &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           (&net.Dialer{Timeout: 10 * time.Second}).DialContext,
		TLSHandshakeTimeout:   10 * time.Second,
		ResponseHeaderTimeout: 60 * time.Second,
		ForceAttemptHTTP2:     true,
	}
}

func loopback(host string) bool {
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

// cvm resolves which CVM a command is about: argument, --cvm-id, phala.toml.
func (a *app) cvm(s *session, args []string) (string, error) {
	id := ""
	if len(args) > 0 {
		id = args[0]
	}
	if id = first(id, a.cvmID, s.project.cvm()); id == "" {
		return "", usage("which CVM? give its name or id (phala cvms list shows them), or set it in phala.toml (phala link)")
	}
	return id, nil
}

// withCVM runs fn for the CVM the command names.
func (a *app) withCVM(ctx context.Context, args []string, fn func(context.Context, *session, string) error) error {
	s, err := a.loggedIn()
	if err != nil {
		return err
	}
	id, err := a.cvm(s, args)
	if a.interactive || err != nil && a.TTY {
		id, err = a.pickCVM(ctx, s)
	}
	if err != nil {
		return err
	}
	return naming(s, id, a.explain(s, fn(ctx, s, id)))
}

// naming says which CVM there is none of.
func naming(s *session, id string, err error) error {
	var ce *cvm.Error
	if errors.As(err, &ce) && ce.Reason == "cvm-not-found" {
		ce.Message = fmt.Sprintf("there is no CVM %q in the cloud at %s", id, s.api.Base)
	}
	return err
}

// explain adds what to do to errors whose cause is the login or the address.
func (a *app) explain(s *session, err error) error {
	var ce *cvm.Error
	if err == nil || !errors.As(err, &ce) {
		return err
	}
	switch {
	case ce.Code == cvm.Unauthenticated && ce.Fix == "":
		ce.Fix = "the key of profile " + s.name + " is not accepted by " + s.api.Base + ": phala login --url " + s.api.Base
	case ce.Reason == "api-unreachable":
		ce.Message = "no answer from " + s.api.Base + ": " + rootCause(ce)
		ce.Fix = "is the cloud running (phala up)? Is the address right? phala login --url URL sets it"
	}
	return err
}

func rootCause(err error) string {
	var op *net.OpError
	if errors.As(err, &op) {
		return op.Err.Error()
	}
	var dns *net.DNSError
	if errors.As(err, &dns) {
		return dns.Error()
	}
	for {
		next := errors.Unwrap(err)
		if next == nil {
			return err.Error()
		}
		err = next
	}
}

func first(ss ...string) string {
	for _, s := range ss {
		if s != "" {
			return s
		}
	}
	return ""
}
