package guestapi

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"io"
	"net/http"

	"github.com/confidential-cloud/phala/attest"
	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/internal/rpc"
)

// Paths of our extension of dstack.sock.
const (
	PathEvidence    = "/v1/Evidence"
	PathKMS         = "/v1/KMS"
	PathKeyRequests = "/v1/KeyRequests"
)

// Hex is bytes on the reference's JSON wire: lowercase hex, "" when empty; on
// input optional 0x prefixes are stripped.
type Hex []byte

// MarshalJSON writes lowercase hex.
func (h Hex) MarshalJSON() ([]byte, error) { return json.Marshal(hex.EncodeToString(h)) }

// UnmarshalJSON reads hex, or null for none.
func (h *Hex) UnmarshalJSON(b []byte) error {
	if string(b) == "null" {
		*h = nil
		return nil
	}
	var s string
	if err := json.Unmarshal(b, &s); err != nil {
		return cvm.Errorf(cvm.Invalid, "want a hex string")
	}
	return h.UnmarshalText([]byte(s))
}

// UnmarshalText reads hex without quotes (query strings).
func (h *Hex) UnmarshalText(b []byte) error {
	for bytes.HasPrefix(b, []byte("0x")) {
		b = b[2:]
	}
	v, err := hex.DecodeString(string(b))
	if err != nil {
		return cvm.Errorf(cvm.Invalid, "not a hex string")
	}
	*h = v
	return nil
}

// AppInfo is the reference's Info answer (dstack-core C.4). TCBInfo and VMConfig
// are JSON in a string and empty where the app hides them.
type AppInfo struct {
	AppID           Hex    `json:"app_id"`
	InstanceID      Hex    `json:"instance_id"`
	AppCert         string `json:"app_cert"` // PEM chain
	TCBInfo         string `json:"tcb_info"` // JSON of TCBInfo, indented
	AppName         string `json:"app_name"`
	DeviceID        Hex    `json:"device_id"`
	MRAggregated    Hex    `json:"mr_aggregated"`
	OSImageHash     Hex    `json:"os_image_hash"`
	KeyProviderInfo string `json:"key_provider_info"`
	ComposeHash     Hex    `json:"compose_hash"`
	VMConfig        string `json:"vm_config"`
	CloudVendor     string `json:"cloud_vendor"`
	CloudProduct    string `json:"cloud_product"`
	// IgnoredKeys are top-level keys of the app-compose (manifest 1-2) that this guest
	// does not know and ignores. Ours; not there when there are none.
	IgnoredKeys []string `json:"ignored_keys,omitempty"`
}

// TLSKeyRequest asks for a fresh key and its certificate (GetTlsKey).
type TLSKeyRequest struct {
	Subject    string   `json:"subject"`
	AltNames   []string `json:"alt_names"`
	RATLS      bool     `json:"usage_ra_tls"` // put the evidence into the certificate
	ServerAuth bool     `json:"usage_server_auth"`
	ClientAuth bool     `json:"usage_client_auth"`
	NotBefore  *uint64  `json:"not_before"` // unix seconds
	NotAfter   *uint64  `json:"not_after"`  // unix seconds
	AppInfo    bool     `json:"with_app_info"`
}

// TLSKey is a private key (PKCS#8 PEM: secret) and its chain (PEM, leaf first).
type TLSKey struct {
	Key              string   `json:"key"`
	CertificateChain []string `json:"certificate_chain"`
}

// KeyRequest asks for a derived key (GetKey). Purpose only enters the signature.
type KeyRequest struct {
	Path      string `json:"path"`
	Purpose   string `json:"purpose"`
	Algorithm string `json:"algorithm"` // "", secp256k1, k256, ed25519
}

// Key is a derived key (secret) with its signature chain up to the KMS root.
type Key struct {
	Key            Hex   `json:"key"`
	SignatureChain []Hex `json:"signature_chain"`
}

// QuoteRequest carries at most 64 bytes of report data, zero-padded on the right.
type QuoteRequest struct {
	ReportData Hex `json:"report_data"`
}

// Quote is the answer of GetQuote.
type Quote struct {
	Quote       Hex    `json:"quote"`
	EventLog    string `json:"event_log"` // JSON array in a string
	ReportData  Hex    `json:"report_data"`
	VMConfig    string `json:"vm_config"`
	Attestation Hex    `json:"attestation,omitempty"`
}

// Dstack is a client of dstack.sock, for services that live in a guest.
type Dstack struct{ c rpc.Client }

// NewDstack talks to the socket at path.
func NewDstack(path string) *Dstack {
	return &Dstack{c: rpc.Client{Base: "http://unix", HTTP: rpc.UnixClient(path)}}
}

// Info describes the app that this guest runs.
func (d *Dstack) Info(ctx context.Context) (v AppInfo, err error) {
	return v, d.reference(ctx, "Info", struct{}{}, &v)
}

// GetTLSKey makes a key and a certificate under the app's CA.
func (d *Dstack) GetTLSKey(ctx context.Context, r TLSKeyRequest) (v TLSKey, err error) {
	return v, d.reference(ctx, "GetTlsKey", r, &v)
}

// GetKey derives a key that every instance of the app shares.
func (d *Dstack) GetKey(ctx context.Context, r KeyRequest) (v Key, err error) {
	return v, d.reference(ctx, "GetKey", r, &v)
}

// GetQuote quotes up to 64 bytes of report data.
func (d *Dstack) GetQuote(ctx context.Context, reportData []byte) (v Quote, err error) {
	return v, d.reference(ctx, "GetQuote", QuoteRequest{reportData}, &v)
}

// Attest makes evidence over report data. It is a ratls.Quote: an app that ends TLS
// itself proves with it that it, and no relay, is at the end of a connection.
func (d *Dstack) Attest(ctx context.Context, reportData [64]byte) (attest.Evidence, error) {
	var out struct {
		Attestation Hex `json:"attestation"`
	}
	if err := d.reference(ctx, "Attest", QuoteRequest{reportData[:]}, &out); err != nil {
		return attest.Evidence{}, err
	}
	return attest.ParseEvidence(out.Attestation)
}

// Evidence asks for public evidence over a nonce that also binds bound.
func (d *Dstack) Evidence(ctx context.Context, r EvidenceRequest) (v Evidence, err error) {
	return v, d.c.Call(ctx, http.MethodPost, PathEvidence, r, &v)
}

// KMS says what the guest learned over its pinned KMS channel.
func (d *Dstack) KMS(ctx context.Context) (v KMSInfo, err error) {
	return v, d.c.Call(ctx, http.MethodGet, PathKMS, nil, &v)
}

// reference calls a method of the reference's API, whose errors are HTTP 400 with
// {"error": "text"}.
func (d *Dstack) reference(ctx context.Context, method string, req, resp any) error {
	b, err := json.Marshal(req)
	if err != nil {
		return cvm.Errorf(cvm.Invalid, "%s: encoding: %w", method, err)
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, d.c.Base+"/"+method, bytes.NewReader(b))
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", "application/json")
	res, err := d.c.HTTP.Do(r)
	if err != nil {
		return cvm.Errorf(cvm.Unavailable, "guest agent %s: %w", method, err)
	}
	defer res.Body.Close()
	b, err = io.ReadAll(io.LimitReader(res.Body, rpc.MaxBody))
	if err != nil {
		return cvm.Errorf(cvm.Unavailable, "guest agent %s: %w", method, err)
	}
	if res.StatusCode != http.StatusOK {
		var e struct {
			Error string `json:"error"`
		}
		if json.Unmarshal(b, &e) != nil || e.Error == "" {
			e.Error = res.Status
		}
		return cvm.Errorf(cvm.Invalid, "guest agent %s: %s", method, e.Error)
	}
	if err := json.Unmarshal(b, resp); err != nil {
		return cvm.Errorf(cvm.Unavailable, "guest agent %s: reading the answer: %w", method, err)
	}
	return nil
}
