package compose

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"
)

func (g *guest) check(t *testing.T, f File) {
	t.Helper()
	l, err := g.engine.Containers(t.Context())
	if err != nil || len(l) == 0 {
		t.Fatalf("%d containers, %v", len(l), err)
	}
	for _, port := range f.Endpoints {
		eventually(t, fmt.Sprint("port ", port), func() error { return g.answers(t.Context(), strconv.Itoa(port)) })
	}
	for _, c := range f.Checks {
		g.want(t, c)
	}
}

// answers: somebody takes the connection and says something to a line of HTTP.
func (g *guest) answers(ctx context.Context, port string) error {
	d := net.Dialer{Timeout: 3 * time.Second}
	c, err := d.DialContext(ctx, "tcp", "127.0.0.1:"+port)
	if err != nil {
		return err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := io.WriteString(c, "GET /health HTTP/1.0\r\n\r\n"); err != nil {
		return err
	}
	b := make([]byte, 64)
	n, err := c.Read(b)
	if n == 0 {
		return fmt.Errorf("no answer: %w", err)
	}
	return nil
}

// want is one check: "PORT PATH => TEXT in the answer", "PORT PATH +Bearer:TOKEN
// !STATUS", "PORT tcp => TEXT".
func (g *guest) want(t *testing.T, check string) {
	t.Helper()
	ask, text, _ := strings.Cut(check, " => ")
	ask, status, _ := strings.Cut(ask, " !")
	ask, bearer, _ := strings.Cut(ask, " +Bearer:")
	port, path, _ := strings.Cut(ask, " ")
	if path == "tcp" {
		must(t, g.answers(t.Context(), port))
		return
	}
	path, query, _ := strings.Cut(path, "?")
	u := "http://127.0.0.1:" + port + path
	if query != "" {
		u += "?" + quoted(query)
	}
	eventually(t, check, func() error {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, u, nil)
		if err != nil {
			return err
		}
		if bearer != "" {
			req.Header.Set("Authorization", "Bearer "+bearer)
		}
		res, err := g.client.Do(req)
		if err != nil {
			return err
		}
		defer res.Body.Close()
		b, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
		if err != nil {
			return err
		}
		if status == "" && res.StatusCode != http.StatusOK || status != "" && strconv.Itoa(res.StatusCode) != status || !bytes.Contains(b, []byte(text)) {
			return fmt.Errorf("%s %.300s", res.Status, b)
		}
		return nil
	})
}

// quoted escapes the values of a query; url, which may have a query of its own, is
// the last.
func quoted(query string) string {
	v := url.Values{}
	if before, last, ok := strings.Cut(query, "url="); ok {
		v.Set("url", last)
		query = strings.TrimSuffix(before, "&")
	}
	for pair := range strings.SplitSeq(query, "&") {
		if k, x, ok := strings.Cut(pair, "="); ok {
			v.Set(k, x)
		}
	}
	return v.Encode()
}

func (g *guest) put(t *testing.T, port, path, text string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, "http://127.0.0.1:"+port+"/file?"+quoted("path="+path), strings.NewReader(text))
	must(t, err)
	res, err := g.client.Do(req)
	must(t, err)
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		t.Fatal(res.Status)
	}
}
