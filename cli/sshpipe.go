package cli

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"strings"

	"github.com/confidential-cloud/phala/cvm"
)

// pipeFlag makes phala itself the ProxyCommand of ssh and scp: TLS to the gateway with
// the certificate checked, to the address that the trust profile pins. (openssl s_client,
// as the public CLI has it, takes any certificate and resolves no *.localhost.)
const pipeFlag = "tls-pipe"

// proxyCommand carries SSH in TLS to the gateway, which finds the app by the name.
func (a *app) proxyCommand() (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", cvm.Errorf(cvm.Internal, "finding this program, which ssh is to run: %w", err)
	}
	words := []string{strings.ReplaceAll(shellWord(self), "%", "%%"), "ssh"}
	if a.profile != "" {
		words = append(words, "--profile", strings.ReplaceAll(shellWord(a.profile), "%", "%%"))
	}
	return "ProxyCommand=" + strings.Join(append(words, "--"+pipeFlag, "%h:%p"), " "), nil
}

// pipe joins stdin and stdout with a verified TLS connection to host:port.
func (a *app) pipe(ctx context.Context, target string) error {
	host, _, err := net.SplitHostPort(target)
	if err != nil || !hostRule.MatchString(host) {
		return usage("--%s %q: want host:port", pipeFlag, target)
	}
	t, err := a.gatewayTransport()
	if err != nil {
		return err
	}
	raw, err := t.DialContext(ctx, "tcp", target)
	if err != nil {
		return cvm.Errorf(cvm.Unavailable, "the gateway does not answer at %s: %w", target, err)
	}
	defer raw.Close()
	defer context.AfterFunc(ctx, func() { _ = raw.Close() })()
	conf := t.TLSClientConfig.Clone()
	conf.ServerName = host
	c := tls.Client(raw, conf)
	if err := c.HandshakeContext(ctx); err != nil {
		return cvm.Errorf(cvm.Unavailable, "TLS with the gateway for %s: %w", host, err).
			WithFix("phala verify says who answers there; is the CVM running, with a port 22?")
	}
	go func() { // ends with the process, or with the connection
		if _, err := io.Copy(c, a.Stdin); err == nil {
			_ = c.CloseWrite()
		}
	}()
	_, err = io.Copy(a.Stdout, c)
	if errors.Is(err, io.ErrUnexpectedEOF) {
		err = nil // the far end is gone; ssh says what that means
	}
	return err
}

// gatewayTransport dials apps by the login's trust profile; without one, by the system's
// resolver and authorities.
func (a *app) gatewayTransport() (*http.Transport, error) {
	s, err := a.session()
	if err != nil {
		return nil, err
	}
	if s.extra.Trust == "" {
		return &http.Transport{TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12}, DialContext: (&net.Dialer{}).DialContext}, nil
	}
	p, _, err := a.trust(s, "")
	if err != nil {
		return nil, err
	}
	s.gateway(p)
	c, err := a.gatewayClient(s, p)
	if err != nil {
		return nil, err
	}
	t, ok := c.Transport.(*http.Transport)
	if !ok {
		return nil, cvm.Errorf(cvm.Internal, "the gateway's client has no transport of its own")
	}
	return t, nil
}
