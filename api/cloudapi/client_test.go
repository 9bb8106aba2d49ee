package cloudapi

import (
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/confidential-cloud/phala/cvm"
)

func TestParseError(t *testing.T) {
	tests := []struct {
		name         string
		status       int
		body         string
		code         cvm.Code
		reason, text string
		fix          string
	}{
		{"text", 401, `{"detail":"no key"}`, cvm.Unauthenticated, "", "no key", ""},
		{"structured", 422, `{"detail":{"error_code":"ERR-02-001","message":"no such type","suggestions":["choose one"],"reason":"unknown-instance-type"}}`, cvm.Invalid, "unknown-instance-type", "no such type", "choose one"},
		{"structured of another server", 409, `{"detail":{"error_code":"ERR-01-004","message":"duplicate"}}`, cvm.Conflict, "ERR-01-004", "duplicate", ""},
		{"own code wins over status", 409, `{"detail":{"error_code":"","message":"full","code":"exhausted"}}`, cvm.Exhausted, "", "full", ""},
		{"validation", 422, `{"detail":[{"loc":["body","name"],"msg":"too short","type":"x","fix":"longer"},{"loc":["query","page"],"msg":"bad","type":"x"}]}`, cvm.Invalid, "validation", "name: too short; page: bad", "longer"},
		{"on chain", 465, `{"detail":{"error_code":"ERR-01-005","message":"register first"}}`, cvm.Precondition, "ERR-01-005", "register first", ""},
		{"not ours", 502, `<html>`, cvm.Unavailable, "", "the API answered 502 Bad Gateway", ""},
		{"empty", 404, ``, cvm.NotFound, "", "the API answered 404 Not Found", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := ParseError(tt.status, []byte(tt.body))
			var e *cvm.Error
			var a *APIError
			if !errors.As(err, &e) || !errors.As(err, &a) {
				t.Fatalf("%T", err)
			}
			if e.Code != tt.code || e.Reason != tt.reason || e.Message != tt.text || e.Fix != tt.fix || a.Status != tt.status {
				t.Errorf("got %+v", e)
			}
		})
	}
}

func FuzzParseError(f *testing.F) {
	f.Add(422, []byte(`{"detail":[{"loc":["body",1],"msg":"m"}]}`))
	f.Add(500, []byte(`{"detail":{}}`))
	f.Add(404, []byte(`{"detail":null}`))
	f.Fuzz(func(t *testing.T, status int, body []byte) {
		err := ParseError(status, body)
		var e *cvm.Error
		if !errors.As(err, &e) || e.Code == "" {
			t.Errorf("%v has no code", err)
		}
	})
}

func TestReadSSE(t *testing.T) {
	read := func(s string) (out []string, err error) {
		err = readSSE(strings.NewReader(s), func(event string, data []byte) error {
			out = append(out, event+"="+string(data))
			if event == "done" {
				return io.EOF
			}
			return nil
		})
		return out, err
	}
	got, err := read(": hello\n\nevent: event\ndata: {\"a\":1}\n\nevent: done\ndata: {}\n\nevent: late\ndata: x\n\n")
	if err != nil || strings.Join(got, " ") != `event={"a":1} done={}` {
		t.Errorf("%q, %v", got, err)
	}
	// A stream that is cut must not look like one that ended.
	if _, err := read("event: event\ndata: {}\n\nevent: do"); cvm.CodeOf(err) != cvm.Unavailable {
		t.Errorf("cut stream: %v", err)
	}
}

func FuzzReadSSE(f *testing.F) {
	f.Add("event: a\ndata: b\n\n")
	f.Add("data:\n\nevent:x\n\n")
	f.Fuzz(func(t *testing.T, s string) {
		if err := readSSE(strings.NewReader(s), func(event string, _ []byte) error {
			if event == "" {
				t.Error("an event without a name")
			}
			return nil
		}); err == nil {
			t.Error("a stream without end ended well")
		}
	})
}
