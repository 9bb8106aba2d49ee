package api

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/confidential-cloud/phala/api/cloudapi"
	"github.com/confidential-cloud/phala/api/store"
	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/vmm/vmmapi"
)

// consoleAge is how long a link to a console is good.
const consoleAge = time.Hour

type originKey struct{}

// origin remembers where people reach this API, for links in answers: the configured
// public URL; without one what the request says, and what a proxy says only if its
// address is a trusted one's.
func (s *Server) origin(hc huma.Context, next func(huma.Context)) {
	base := strings.TrimRight(s.cfg.PublicURL, "/")
	if base == "" {
		base = s.originOf(hc)
	}
	next(huma.WithValue(hc, originKey{}, base))
}

func (s *Server) originOf(hc huma.Context) string {
	scheme, host := "http", hc.Host()
	if hc.TLS() != nil {
		scheme = "https"
	}
	peer, _, err := net.SplitHostPort(hc.RemoteAddr())
	if err != nil || !s.trusted(peer) {
		return scheme + "://" + host
	}
	if p := strings.ToLower(hc.Header("X-Forwarded-Proto")); p == "http" || p == "https" {
		scheme = p
	}
	// The proxy's own word is the last one.
	if hops := strings.Split(hc.Header("X-Forwarded-Host"), ","); isHost(strings.TrimSpace(hops[len(hops)-1])) {
		host = strings.TrimSpace(hops[len(hops)-1])
	}
	return scheme + "://" + host
}

// isHost tells whether v is a host with perhaps a port, and nothing else of a URL.
func isHost(v string) bool {
	u, err := url.Parse("http://" + v)
	return v != "" && err == nil && u.Host == v && u.User == nil && u.Hostname() != ""
}

// consoleSeal is what a console link is signed with: the token of the node that has
// the console, so that every API process makes and accepts the same links, and no
// others than of consoles that it may read.
func (s *Server) consoleSeal(c store.CVM, expires string) (string, error) {
	n := s.nodes.byID[c.NodeID]
	if n == nil {
		return "", gone()
	}
	token, err := os.ReadFile(n.cfg.TokenFile)
	if err != nil {
		return "", fmt.Errorf("console link: %w", err)
	}
	h := hmac.New(sha256.New, []byte("phala-console-link:"+strings.TrimSpace(string(token))))
	_, _ = io.WriteString(h, c.UUID+" "+expires)
	return hex.EncodeToString(h.Sum(nil)), nil
}

// consoleLink is a CVM's syslog_endpoint: existing clients read it without a key, so
// the link itself is the permission. They append "&ch=serial&tail=...".
func (s *Server) consoleLink(ctx context.Context, c store.CVM) *string {
	base, _ := ctx.Value(originKey{}).(string)
	expires := strconv.FormatInt(s.now().Add(consoleAge).Unix(), 10)
	seal, err := s.consoleSeal(c, expires)
	if err != nil || base == "" {
		return nil
	}
	q := url.Values{"expires": {expires}, "seal": {seal}}
	return ptr(fmt.Sprintf("%s%s/console/%d?%s", base, cloudapi.Prefix, c.ID, q.Encode()))
}

type consoleInput struct {
	CVM     int64  `path:"cvm" minimum:"1"`
	Expires string `query:"expires" doc:"from the link"`
	Seal    string `query:"seal" doc:"from the link"`
	Channel string `query:"ch" default:"serial" doc:"serial, or the hypervisor's own stdout or stderr"`
	Tail    string `query:"tail" pattern:"^[0-9]*$" doc:"lines from the end"`
	Since   string `query:"since" doc:"RFC 3339, unix seconds, or a duration before now (10m)"`
	Until   string `query:"until" doc:"as since"`
	Follow  string `query:"follow" doc:"present, also without a value: go on until the client leaves"`
	Times   string `query:"timestamps" doc:"present, also without a value: the time before each line"`

	follow, times bool
}

// Resolve is huma's hook: a bare "&follow" is as good as a value.
func (in *consoleInput) Resolve(hc huma.Context) []error {
	u := hc.URL()
	q := u.Query()
	in.follow, in.times = q.Has("follow") && in.Follow != "false", q.Has("timestamps") && in.Times != "false"
	return nil
}

// openConsole checks a link. What is wrong with it is not told: it could be guessing.
func (s *Server) openConsole(ctx context.Context, in *consoleInput) (c store.CVM, err error) {
	if c, err = s.store.CVM(ctx, in.CVM); err != nil {
		return c, err
	}
	seal, err := s.consoleSeal(c, in.Expires)
	if err != nil {
		return c, missing()
	}
	expires, err := strconv.ParseInt(in.Expires, 10, 64)
	if err != nil || !hmac.Equal([]byte(seal), []byte(in.Seal)) || !c.Live() || s.now().Unix() > expires {
		return c, missing()
	}
	return c, nil
}

func (s *Server) console(ctx context.Context, in *consoleInput) (func(huma.Context), error) {
	c, err := s.openConsole(ctx, in)
	if err != nil {
		return nil, err
	}
	tail, _ := strconv.Atoi(in.Tail) // digits by its pattern; "" is all
	return s.hostLog(ctx, c, vmmapi.LogQuery{Channel: in.Channel, Tail: tail, Since: in.Since, Until: in.Until, Follow: in.follow, Timestamps: in.times})
}

// hostLog passes on what a node keeps of a CVM: its console, or the hypervisor's words.
func (s *Server) hostLog(ctx context.Context, c store.CVM, q vmmapi.LogQuery) (func(huma.Context), error) {
	vmm, err := s.nodes.client(c.NodeID)
	if err != nil {
		return nil, err
	}
	write, err := pass(ctx, func(ctx context.Context) (io.ReadCloser, error) { return vmm.Log(ctx, c.UUID, q) })
	if q.Channel != "serial" && cvm.CodeOf(err) == cvm.Unsupported {
		err = fail(http.StatusNotFound, "", cvm.Unsupported, "no-such-channel", word(explain(err)), "read the console, which has all output of the boot: phala logs --serial")
	}
	return write, err
}

func (s *Server) consoleRoutes(api huma.API) {
	o := op{method: "GET", path: "/console/{cvm}", access: open()}
	h := huma.Operation{
		OperationID: operationID(o), Method: o.method, Path: cloudapi.Prefix + o.path, Tags: []string{"cvms"},
		Summary: "A CVM's console, by the link that its owner was given (syslog_endpoint)",
		Responses: map[string]*huma.Response{
			"200":     {Description: "OK", Content: map[string]*huma.MediaType{"text/plain": {}}},
			"default": {Description: "Error", Content: map[string]*huma.MediaType{"application/json": {Schema: &huma.Schema{Ref: "#/components/schemas/Error"}}}},
		},
	}
	if !s.guard(&h, o.access) {
		return
	}
	huma.Register(api, h, func(ctx context.Context, in *consoleInput) (*huma.StreamResponse, error) {
		write, err := s.console(ctx, in)
		if err != nil {
			return nil, s.answer(ctx, err)
		}
		return &huma.StreamResponse{Body: write}, nil
	})
}
