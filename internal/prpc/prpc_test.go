package prpc

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"reflect"
	"strconv"
	"strings"
	"testing"

	"github.com/confidential-cloud/phala/internal/rpc"
)

type hexed []byte

func (h *hexed) UnmarshalText(b []byte) (err error) {
	*h, err = hex.DecodeString(string(b))
	return err
}

func (h hexed) MarshalText() ([]byte, error) { return []byte(hex.EncodeToString(h)), nil }

type message struct {
	Text   string            `json:"text"`
	Hex    hexed             `json:"hex"`
	List   []string          `json:"list"`
	Flag   bool              `json:"flag"`
	Number uint32            `json:"number"`
	Maybe  *uint64           `json:"maybe,omitempty"`
	Map    map[string]string `json:"map,omitempty"`
	hidden string            //nolint:unused // what a query must not reach
}

func echo() *Service {
	return &Service{
		Methods: map[string]Method{
			"Echo": Unary(func(_ context.Context, m message) (message, error) { return m, nil }),
			"Set":  Unary(func(context.Context, message) (message, error) { return message{}, errors.New("a secret") }),
			"Now":  NoArgs(func(context.Context) (string, error) { return "snow ☃", nil }),
		},
		PostOnly: func(name string) bool { return name == "Set" },
	}
}

func ask(s *Service, method, target, kind, body string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, target, strings.NewReader(body))
	r.Header.Set("Content-Type", kind)
	w := httptest.NewRecorder()
	s.Handler("/prpc", "A.", "B.")(w, r)
	return w
}

func TestTheReferencesWire(t *testing.T) {
	const js, pb = "application/json", "application/octet-stream"
	for _, c := range []struct{ method, target, kind, body, want string }{
		{"POST", "/prpc/Echo", js, `{"text":"a","unknown":1}`, `"text":"a"`}, {"POST", "/Echo", js, "", `"text":""`},
		{"POST", "/prpc/A.B.A.Echo", js, `{"number":7}`, `"number":7`}, {"POST", "/Echo?json", pb, `{"flag":true}`, `"flag":true`},
		{"GET", "/prpc/Echo?text=a&list[0]=x&list[1]=y&hex=0a&flag=1&number=9&maybe=5", "", "", `"text":"a","hex":"0a","list":["x","y"],"flag":true,"number":9,"maybe":5`},
		{"GET", "/Echo?list=x&list[]=y", "", "", `"list":["x","y"]`}, {"GET", "/Now", "", "", `"snow \u2603"`},
	} {
		w := ask(echo(), c.method, c.target, c.kind, c.body)
		if w.Code != http.StatusOK || !strings.Contains(w.Body.String(), c.want) || w.Header().Get("Content-Length") != strconv.Itoa(w.Body.Len()) {
			t.Errorf("%s %s: %d %s", c.method, c.target, w.Code, w.Body)
		}
	}
	for _, c := range []struct{ method, target, kind, body, want string }{
		{"POST", "/prpc/Nope", js, "", "Service not found: Nope"}, {"PUT", "/Echo", js, "{}", "method PUT is not allowed"}, {"GET", "/Set", "", "", "use POST"},
		{"POST", "/Echo", js, `{"text":`, "request body"}, {"POST", "/Echo", js, `{} {}`, "request body"}, {"POST", "/Echo", pb, "\x0a\x01a", "protobuf"},
		{"POST", "/Echo", js, strings.Repeat(" ", rpc.MaxBody+1), "too large"}, {"GET", "/Echo?number=-1", "", "", "query number"}, {"GET", "/Echo?number=4294967296", "", "", "query number"},
		{"GET", "/Echo?maybe=x", "", "", "query maybe"}, {"GET", "/Echo?flag=maybe", "", "", "query flag"}, {"GET", "/Echo?hex=zz", "", "", "query hex"}, {"GET", "/Echo?map=a", "", "", "use POST"},
	} {
		w := ask(echo(), c.method, c.target, c.kind, c.body)
		var e map[string]string
		if w.Code != http.StatusBadRequest || json.Unmarshal(w.Body.Bytes(), &e) != nil || len(e) != 1 || !strings.Contains(e["error"], c.want) {
			t.Errorf("%s %s: %d %s", c.method, c.target, w.Code, w.Body)
		}
	}
}

func TestErrorsSayWhatTheyMay(t *testing.T) {
	s := echo()
	if got := ask(s, "POST", "/Set", "", "").Body.String(); got != "{\n  \"error\": \"a secret\"\n}" {
		t.Errorf("the reference's form: %q", got)
	}
	s.ErrorText = func(error) string { return "withheld" }
	if got := ask(s, "POST", "/Set", "", "").Body.String(); strings.Contains(got, "secret") || !strings.Contains(got, "withheld") {
		t.Errorf("%q", got)
	}
}

// FuzzRequest: whatever comes, the answer is JSON in ASCII; and what a body says, a
// query says the same way.
func FuzzRequest(f *testing.F) {
	f.Add("Echo", []byte(`{"text":"snow ☃ 😀","hex":"00","list":["a","b"],"maybe":1}`), "text=a&list[0]=x&list[]=y&maybe=5&flag=true&hex=0x00")
	f.Add("A.B.Nope", []byte(nil), "hidden=a&=b")
	f.Fuzz(func(t *testing.T, name string, body []byte, query string) {
		for _, method := range []string{http.MethodPost, http.MethodGet} {
			r := httptest.NewRequest(method, "/x", bytes.NewReader(body))
			r.URL = &url.URL{Path: "/prpc/" + name, RawQuery: query}
			w := httptest.NewRecorder()
			echo().Handler("/prpc", "A.", "B.")(w, r)
			if w.Code != http.StatusOK && w.Code != http.StatusBadRequest || !json.Valid(w.Body.Bytes()) {
				t.Fatalf("%s %q: %d %s", name, body, w.Code, w.Body)
			}
			for _, c := range w.Body.Bytes() {
				if c >= 0x80 {
					t.Fatalf("not ASCII: %q", w.Body)
				}
			}
		}
		var sent message
		if json.Unmarshal(body, &sent) != nil || sent.Text == "" || len(sent.List) == 0 {
			return
		}
		sent.Map, sent.Hex = nil, append(hexed{}, sent.Hex...)
		q := url.Values{"text": {sent.Text}, "list[]": sent.List, "flag": {strconv.FormatBool(sent.Flag)}, "number": {strconv.FormatUint(uint64(sent.Number), 10)}, "hex": {hex.EncodeToString(sent.Hex)}}
		if sent.Maybe != nil {
			q.Set("maybe", strconv.FormatUint(*sent.Maybe, 10))
		}
		var got message
		if err := decodeQuery(q, &got); err != nil || !reflect.DeepEqual(got, sent) {
			t.Errorf("%v: %+v became %+v (%v)", q, sent, got, err)
		}
	})
}

func FuzzASCII(f *testing.F) {
	f.Add("snow ☃ 😀 é")
	f.Fuzz(func(t *testing.T, s string) {
		in, err := json.Marshal(s)
		if err != nil {
			return
		}
		var a, b string
		if json.Unmarshal(in, &a) != nil || json.Unmarshal(ascii(in), &b) != nil || a != b {
			t.Errorf("%q became %q", a, b)
		}
	})
}
