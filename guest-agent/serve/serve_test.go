package serve

import (
	"encoding/hex"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	legacy "golang.org/x/crypto/sha3"

	"github.com/confidential-cloud/phala/guest-agent/guestapi"
	"github.com/confidential-cloud/phala/keys"
)

// The permutation is checked against a library through Keccak-256, whose rate
// differs, and keccak384 against frozen values of the published algorithm.
func TestKeccak384(t *testing.T) {
	var a [25]uint64
	keccakF(&a)
	// First lane of Keccak-f[1600] of the zero state.
	if a[0] != 0xf1258f7940e1dde7 || a[1] != 0x84d5ccf933c0478a {
		t.Errorf("permutation: %x %x", a[0], a[1])
	}
	h := legacy.NewLegacyKeccak256()
	h.Write(nil)
	if got := hex.EncodeToString(h.Sum(nil)[:4]); got != "c5d24601" {
		t.Errorf("library: %s", got)
	}
	// DO NOT CHANGE: Keccak-384 of the empty message.
	if got := hex.EncodeToString(keccak384(nil)); got != "2c23146a63a29acf99e73b88f8c24eaa7dc60aa771780ccc006afbfa8fe2479b2dd2b21362337441ac12b515911957ff" {
		t.Errorf("keccak384: %s", got)
	}
}

// DO NOT CHANGE: the reference's vector (dstack-core C.3).
func TestHashedReportData(t *testing.T) {
	rd, alg, tag, err := hashedReportData("", "", []byte("test content"))
	if err != nil || alg != "sha512" || tag != "app-data" ||
		hex.EncodeToString(rd[:]) != "7ea0b744ed5e9c0c83ff9f575668e1697652cd349f2027cdf26f918d4c53e8cd50b5ea9b449b4c3d50e20ae00ec29688d5a214e8daff8a10041f5d624dae8a01" {
		t.Errorf("%x %s %s %v", rd, alg, tag, err)
	}
	if _, _, _, err := hashedReportData("raw", "", make([]byte, 63)); err == nil {
		t.Error("raw with 63 bytes")
	}
	if _, _, _, err := hashedReportData("md5", "", nil); err == nil {
		t.Error("md5")
	}
}

// DO NOT CHANGE: the reference's vector (dstack-core C.2).
func TestAppKeyReportData(t *testing.T) {
	raw, _ := hex.DecodeString("1a2b3c4d5e6f7a8b9c0d1e2f3a4b5c6d7e8f9a0b1c2d3e4f5a6b7c8d9e0f1a2b")
	key, err := keys.KeyPath(keys.NewSecret(raw), signPath)
	if err != nil {
		t.Fatal(err)
	}
	for alg, want := range map[string]string{
		keys.Ed25519: "dip1::ed25519-pk:5Pbre1Amf1hrp2V2bbfKlIfxpQb2pJAmrgmhxgVoG9s", keys.Secp256k1: "dip1::secp256k1c-pk:A6t_JdVkVdMAocH3f1f20WGT6JzdntxcXimUtEax8zc9",
	} {
		pub, err := keys.PublicKey(alg, key)
		if err != nil {
			t.Fatal(err)
		}
		label, _, _ := strings.Cut(strings.TrimPrefix(want, "dip1::"), ":")
		rd, err := appKeyReportData(label, pub)
		if err != nil || strings.TrimRight(string(rd[:]), "\x00") != want {
			t.Errorf("%s: %q %v", alg, rd, err)
		}
	}
}

func TestPRPC(t *testing.T) {
	raw := make([]byte, 32)
	raw[31] = 1
	b := &Backend{AppKey: keys.NewSecret(raw)}
	h := b.Dstack()
	call := func(method, target, ct, body string) (int, string, http.Header) {
		r := httptest.NewRequest(method, target, strings.NewReader(body))
		r.Header.Set("Content-Type", ct)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return w.Code, w.Body.String(), w.Header()
	}
	const js = "application/json"
	_, want, hd := call("POST", "/GetKey", js, `{"path":"a","purpose":"p","unknown":1,"algorithm":null}`)
	var k guestapi.Key
	if json.Unmarshal([]byte(want), &k) != nil || len(k.Key) != 32 || hd.Get("Content-Length") == "" || !strings.Contains(want, `["`) {
		t.Fatalf("GetKey: %s %v", want, hd)
	}
	same := []struct{ method, target, body string }{
		{"GET", "/GetKey?path=a&purpose=p", ""}, {"POST", "/prpc/DstackGuest.GetKey?json", `{"path":"a","purpose":"p"}`},
		{"POST", "/DstackGuest.DstackGuest.GetKey", `{"path":"a","purpose":"p","algorithm":"k256"}`},
	}
	for _, s := range same {
		if code, got, _ := call(s.method, s.target, js, s.body); code != 200 || got != want {
			t.Errorf("%s %s: %d %s", s.method, s.target, code, got)
		}
	}
	refused := []struct{ method, target, ct, body, text string }{
		{"POST", "/Nope", js, "{}", "Service not found: Nope"}, {"POST", "/EmitEvent", js, "{}", "Service not found"},
		{"POST", "/GetKey", js, `{"path":`, "request body"}, {"POST", "/GetKey", "application/octet-stream", "\x0a\x01a", "protobuf"},
		{"POST", "/GetKey", js, `{"algorithm":"secp256k1_prehashed"}`, "Unsupported algorithm"}, {"DELETE", "/Version", js, "", "not allowed"},
		{"POST", "/GetQuote", js, `{"report_data":"` + strings.Repeat("00", 65) + `"}`, "Report data is too long"},
		{"POST", "/GetQuote", js, `{"report_data":"zz"}`, "hex"}, {"POST", "/Sign", js, `{"algorithm":"secp256k1_prehashed","data":"00"}`, "32-byte digest, but received 1 bytes"},
		{"GET", "/GetTlsKey?not_before=x", js, "", "not_before"},
	}
	for _, s := range refused {
		code, got, _ := call(s.method, s.target, s.ct, s.body)
		var e struct{ Error string }
		if code != 400 || json.Unmarshal([]byte(got), &e) != nil || !strings.Contains(e.Error, s.text) {
			t.Errorf("%s %s: %d %s", s.method, s.target, code, got)
		}
	}
}

func TestEvidenceRateLimit(t *testing.T) {
	now := testClock()
	h := (&Backend{Now: func() time.Time { return now }}).External()
	ask := func() int {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("GET", "/evidence?nonce=odd", nil))
		return w.Code
	}
	for range quoteBurst {
		if code := ask(); code != http.StatusBadRequest {
			t.Fatalf("within the burst: %d", code)
		}
	}
	if code := ask(); code != http.StatusTooManyRequests {
		t.Errorf("beyond the burst: %d", code)
	}
	now = now.Add(time.Second)
	if code := ask(); code != http.StatusBadRequest {
		t.Errorf("a second later: %d", code)
	}
}

func testClock() time.Time { return time.Unix(1_700_000_000, 0) }
