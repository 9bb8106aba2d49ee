package fetch

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/confidential-cloud/phala/attest/collateral"
	"github.com/confidential-cloud/phala/internal/run"
)

// maxHeaders bounds the headers of an answer, which hold an issuers' chain of
// about 3 KiB, in bytes.
const maxHeaders = 64 << 10

// httpClient never follows a redirect (no service of these makes any), never
// unpacks (an answer of 1 KiB could become one of 1 MiB), and bounds headers.
func httpClient(cfg Config) *http.Client {
	rt := cfg.Transport
	if rt == nil {
		d := &net.Dialer{Timeout: cfg.Timeout, KeepAlive: 30 * time.Second}
		rt = &http.Transport{
			Proxy: http.ProxyFromEnvironment, DialContext: d.DialContext, TLSClientConfig: cfg.TLS, ForceAttemptHTTP2: true,
			TLSHandshakeTimeout: cfg.Timeout, ResponseHeaderTimeout: cfg.Timeout, MaxResponseHeaderBytes: maxHeaders,
			DisableCompression: true, MaxIdleConnsPerHost: 4, MaxConnsPerHost: maxFetches, IdleConnTimeout: 30 * time.Second,
		}
	}
	return &http.Client{Transport: rt, CheckRedirect: func(*http.Request, []*http.Request) error { return errRedirect }}
}

var errRedirect = errors.New("redirects are refused")

// statusError is an answer that is not 200.
type statusError struct {
	status string
	code   int
	after  time.Duration // Retry-After; 0: none
}

func (e *statusError) Error() string { return e.status }

func isNotFound(err error) bool {
	var e *statusError
	return errors.As(err, &e) && e.code == http.StatusNotFound
}

// maxWaits bounds how often one statement is asked for again when a service says
// Retry-After. AMD's answers one of equal requests per 10 s.
const maxWaits = 3

// ask gets one answer. A service that is busy is waited for as long as ctx allows.
func (c *Client) ask(ctx context.Context, u string, headers []string) (body, chain []byte, err error) {
	for range maxWaits {
		body, chain, err = c.once(ctx, u, headers)
		var busy *statusError
		if !errors.As(err, &busy) || busy.after == 0 {
			return body, chain, err
		}
		if end, ok := ctx.Deadline(); ok && time.Until(end) <= busy.after {
			return nil, nil, err
		}
		if perr := run.Pause(ctx, busy.after); perr != nil {
			return nil, nil, err
		}
	}
	return body, chain, err
}

// once reads one bounded answer. The first of headers that is set holds the
// percent-encoded chain of issuers.
func (c *Client) once(ctx context.Context, u string, headers []string) (body, chain []byte, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u, nil)
	if err != nil {
		return nil, nil, err
	}
	req.Header.Set("User-Agent", "phala-collateral")
	res, err := c.http.Do(req)
	if err != nil {
		return nil, nil, err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return nil, nil, fmt.Errorf("GET %s: %w", u, &statusError{res.Status, res.StatusCode, retryAfter(res)})
	}
	if e := res.Header.Get("Content-Encoding"); res.Uncompressed || e != "" && !strings.EqualFold(e, "identity") {
		return nil, nil, fmt.Errorf("GET %s: the answer is packed (%q), which nobody asked for", u, e)
	}
	if body, err = io.ReadAll(io.LimitReader(res.Body, collateral.MaxBody+1)); err != nil {
		return nil, nil, fmt.Errorf("GET %s: %w", u, err)
	}
	if len(body) > collateral.MaxBody {
		return nil, nil, fmt.Errorf("GET %s: the answer is over %d bytes", u, collateral.MaxBody)
	}
	if len(headers) == 0 {
		return body, nil, nil
	}
	for _, h := range headers {
		if v := res.Header.Values(h); len(v) == 1 {
			if chain, err = decodeChain(v[0]); err != nil {
				return nil, nil, fmt.Errorf("GET %s: header %s: %w", u, h, err)
			}
			return body, chain, nil
		} else if len(v) > 1 {
			return nil, nil, fmt.Errorf("GET %s: %d headers %s", u, len(v), h)
		}
	}
	return nil, nil, fmt.Errorf("GET %s: no header %s", u, headers[0])
}

// retryAfter is what a busy service asks for, in seconds or as a date.
func retryAfter(res *http.Response) time.Duration {
	if res.StatusCode != http.StatusTooManyRequests && res.StatusCode != http.StatusServiceUnavailable {
		return 0
	}
	v := res.Header.Get("Retry-After")
	if s, err := strconv.Atoi(v); err == nil && s >= 0 {
		return time.Duration(min(s, 3600)+1) * time.Second // never a busy loop on "0"
	}
	if at, err := http.ParseTime(v); err == nil {
		if date, err := http.ParseTime(res.Header.Get("Date")); err == nil && at.After(date) {
			return min(at.Sub(date), time.Hour)
		}
	}
	return 0
}

// decodeChain undoes the percent encoding of an issuers' chain. Services differ:
// a space is "%20" or, where the whole was form-encoded, "+" (a "+" of base64 is
// then "%2B"); line ends are LF or CR LF. What comes out is canonical PEM.
func decodeChain(v string) ([]byte, error) {
	unescape := url.PathUnescape
	if strings.Contains(v, "BEGIN+CERTIFICATE") {
		unescape = url.QueryUnescape
	}
	s, err := unescape(v)
	if err != nil {
		return nil, err
	}
	return canonicalChain([]byte(s))
}

// maxChainCerts bounds what a chain header may hold; verification wants exactly two.
const maxChainCerts = 4

func canonicalChain(text []byte) ([]byte, error) {
	if len(text) > collateral.MaxChain {
		return nil, fmt.Errorf("a chain of %d bytes, at most %d", len(text), collateral.MaxChain)
	}
	var out []byte
	rest := bytes.Trim(text, "\x00 \r\n\t")
	for n := 0; len(rest) > 0; n++ {
		if n == maxChainCerts || !bytes.HasPrefix(rest, []byte("-----BEGIN CERTIFICATE-----")) {
			return nil, errors.New("not a chain of at most four PEM certificates")
		}
		block, next := pem.Decode(rest)
		if block == nil || block.Type != "CERTIFICATE" || len(block.Headers) != 0 {
			return nil, errors.New("not a chain of PEM certificates")
		}
		out = append(out, pem.EncodeToMemory(block)...)
		rest = bytes.TrimLeft(next, " \r\n\t")
	}
	if out == nil {
		return nil, errors.New("an empty chain")
	}
	return out, nil
}

// decodeCRL takes a revocation list as DER, as hex of it (PCCS) or as PEM (PCS
// without encoding=der).
func decodeCRL(b []byte) ([]byte, error) {
	text := bytes.TrimSpace(b)
	switch {
	case len(b) > 0 && b[0] == 0x30:
		return b, nil
	case bytes.HasPrefix(text, []byte("-----BEGIN X509 CRL-----")):
		block, rest := pem.Decode(text)
		if block == nil || block.Type != "X509 CRL" || len(block.Headers) != 0 || len(bytes.TrimSpace(rest)) != 0 {
			return nil, errors.New("a revocation list in broken PEM")
		}
		return block.Bytes, nil
	}
	// Some put the hex into a JSON string.
	text = bytes.Trim(text, `"`)
	der, err := hex.DecodeString(string(text))
	if err != nil || len(der) == 0 {
		return nil, errors.New("a revocation list that is neither DER, hex nor PEM")
	}
	return der, nil
}
