package rpc

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"github.com/confidential-cloud/phala/cvm"
)

type echo struct {
	Text string `json:"text"`
}

func serve(t *testing.T, fn func(r *http.Request, e echo) (echo, error)) *httptest.Server {
	s := httptest.NewServer(Handle(fn))
	t.Cleanup(s.Close)
	return s
}

func TestErrorsCrossTheWireWithCodeReasonAndFix(t *testing.T) {
	for code := range statusOf {
		s := serve(t, func(*http.Request, echo) (echo, error) {
			return echo{}, cvm.Errorf(code, "no").WithReason("why").WithFix("do this")
		})
		err := (&Client{Base: s.URL}).Call(context.Background(), "POST", "/", echo{}, nil)
		var e *cvm.Error
		if !errors.As(err, &e) || e.Code != code || e.Reason != "why" || e.Fix != "do this" {
			t.Errorf("%s came back as %#v", code, err)
		}
	}
}

func TestUncodedErrorsKeepTheirTextAtHome(t *testing.T) {
	s := serve(t, func(*http.Request, echo) (echo, error) { return echo{}, errors.New("password is hunter2") })
	err := (&Client{Base: s.URL}).Call(context.Background(), "POST", "/", echo{}, nil)
	if cvm.CodeOf(err) != cvm.Internal || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("got %v", err)
	}
}

func TestBodiesAreStrictAndBounded(t *testing.T) {
	s := serve(t, func(_ *http.Request, e echo) (echo, error) { return e, nil })
	for name, body := range map[string]string{
		"unknown field": `{"text":"a","more":1}`,
		"two values":    `{"text":"a"}{}`,
		"not JSON":      `text`,
		"too large":     `{"text":"` + strings.Repeat("a", MaxBody) + `"}`,
	} {
		res, err := http.Post(s.URL, "application/json", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != http.StatusBadRequest {
			t.Errorf("%s: status %d, want 400", name, res.StatusCode)
		}
	}
	var got echo
	if err := (&Client{Base: s.URL}).Call(context.Background(), "POST", "/", echo{Text: "x"}, &got); err != nil || got.Text != "x" {
		t.Errorf("got %v, %v", got, err)
	}
}

func TestUnixSocketAndContentLength(t *testing.T) {
	sock := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", sock)
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: Handle(func(_ *http.Request, e echo) (echo, error) { return e, nil })}
	go srv.Serve(l)
	t.Cleanup(func() { srv.Close() })
	res, err := UnixClient(sock).Post("http://unix/", "application/json", strings.NewReader(`{"text":"é"}`))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if res.ContentLength <= 0 {
		t.Errorf("no Content-Length (%d): the JS SDK would hang", res.ContentLength)
	}
}

func TestUnreachableIsUnavailable(t *testing.T) {
	err := (&Client{Base: "http://127.0.0.1:1"}).Call(context.Background(), "GET", "/", nil, nil)
	if cvm.CodeOf(err) != cvm.Unavailable {
		t.Errorf("got %v", err)
	}
}
