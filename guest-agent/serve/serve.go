// Package serve is what a running guest answers: dstack.sock and tappd.sock to its
// containers, port 8090 to everyone, guest.sock to its host. The reference's wire
// is spoken as it is there (dstack-core 0, C), JSON only; our extensions live under
// /v1 and at /evidence.
//
// Make a Backend once the boot knows the app, and mount Dstack, Tappd, External and
// Guest on listeners.
package serve

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/sha256"
	"encoding/json"
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/confidential-cloud/phala/appcompose"
	"github.com/confidential-cloud/phala/attest"
	"github.com/confidential-cloud/phala/attest/eventlog"
	"github.com/confidential-cloud/phala/attest/measure"
	"github.com/confidential-cloud/phala/attest/tdx"
	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/guest-agent/compose"
	"github.com/confidential-cloud/phala/guest-agent/guestapi"
	"github.com/confidential-cloud/phala/keys"
	"github.com/confidential-cloud/phala/kms/kmsapi"
	"github.com/confidential-cloud/phala/ledger"
)

// Containers is the engine that runs the app; compose.Engine is one.
type Containers interface {
	Containers(ctx context.Context) ([]guestapi.Container, error)
	Logs(ctx context.Context, w io.Writer, name string, o compose.LogOptions) error
	Images() []guestapi.ImageUse
}

// Backend is what the answers are made of.
type Backend struct {
	Log *slog.Logger
	Now func() time.Time

	App         *appcompose.Document
	AppID       cvm.AppID
	InstanceID  cvm.InstanceID
	KeyProvider []byte // payload of the key-provider event
	VMConfig    string
	ComposeHash cvm.ComposeHash
	OSImageHash []byte // what the boot recorded; nil without a KMS

	AppKey keys.Secret // k256
	AppSig []byte

	// Evidence quotes report data now.
	Evidence func(ctx context.Context, reportData [64]byte) (attest.Evidence, error)
	// Sign certifies a P-256 key under the app's CA and returns PEM, leaf first.
	Sign func(ctx context.Context, key *ecdsa.PrivateKey, c kmsapi.CertConfig) ([]string, error)
	// QuoteAttestation adds the whole attestation to GetQuote, as the reference's
	// simulator does and its agents on TDX do not.
	QuoteAttestation bool

	KMS       guestapi.KMSInfo // zero without a KMS
	Simulated bool             // no TEE at all: fixtures
	Receipt   ledger.Receipt
	HasEnv    bool
	EnvSigned bool

	// Containers is nil for runner none.
	Containers Containers
	// Prepare pulls what another app-compose would run; nil for runner none.
	Prepare func(ctx context.Context, doc *appcompose.Document, tell func(guestapi.PullProgress)) error
	// DataDir is shown as the data disk.
	DataDir string

	mu   sync.Mutex
	cert string // app_cert
	regs *registers

	asked counters
}

func (b *Backend) logger() *slog.Logger {
	if b.Log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return b.Log
}

// Version and revision that the agent reports.
const (
	Version = "0.6.0"
	Rev     = "phala"
)

// registers are what the guest's own evidence shows.
type registers struct {
	tdx        *tdx.Body // nil on SEV-SNP
	events     []eventlog.Event
	aggregated [32]byte
}

// measured quotes zero report data and reads the registers from the quote. They
// only change with the event log, and quoting is slow on real hardware. On SEV-SNP there
// are none: the events stand alone.
func (b *Backend) measured(ctx context.Context) (*registers, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.regs != nil {
		return b.regs, nil
	}
	ev, err := b.Evidence(ctx, [64]byte{})
	if err != nil {
		return nil, err
	}
	if ev.Variant == cvm.VariantSNP {
		b.regs, err = ofReport(ev)
		return b.regs, err
	}
	q, err := tdx.ParseQuote(ev.Quote)
	if err != nil {
		return nil, err
	}
	b.regs = &registers{tdx: &q.Body, events: ev.EventLog, aggregated: aggregated(q.Body)}
	return b.regs, nil
}

// aggregated is mr_aggregated (dstack-core A.5).
func aggregated(t tdx.Body) [32]byte {
	h := sha256.New()
	h.Write(t.MRTD[:])
	for _, r := range t.RTMR {
		h.Write(r[:])
	}
	zero := cvm.Measurement{}
	if t.MRConfigID != zero || t.MROwner != zero || t.MROwnerConfig != zero {
		h.Write(t.MRConfigID[:])
		h.Write(t.MROwner[:])
		h.Write(t.MROwnerConfig[:])
	}
	return [32]byte(h.Sum(nil))
}

// osImageHash is what the boot recorded, else (without a KMS) vm_config's.
func (b *Backend) osImageHash() []byte {
	if len(b.OSImageHash) > 0 {
		return b.OSImageHash
	}
	if c, err := measure.ParseVMConfig(b.VMConfig); err == nil && c.OSImageHash != (cvm.ImageHash{}) {
		return c.OSImageHash[:]
	}
	return nil
}

// tcbInfo is the reference's tcb_info, an indented JSON string.
type tcbInfo struct {
	MRTD         *cvm.Measurement `json:"mrtd"` // null without TDX, as the next four
	RTMR0        *cvm.Measurement `json:"rtmr0"`
	RTMR1        *cvm.Measurement `json:"rtmr1"`
	RTMR2        *cvm.Measurement `json:"rtmr2"`
	RTMR3        *cvm.Measurement `json:"rtmr3"`
	MRAggregated guestapi.Hex     `json:"mr_aggregated"`
	OSImageHash  guestapi.Hex     `json:"os_image_hash"`
	ComposeHash  guestapi.Hex     `json:"compose_hash"`
	DeviceID     guestapi.Hex     `json:"device_id"`
	EventLog     []eventlog.Event `json:"event_log"`
	AppCompose   string           `json:"app_compose"`
}

// Info is the reference's AppInfo. The evidence behind it is the guest's own and
// unverified: the device is therefore sha256 of nothing, as in the reference.
func (b *Backend) Info(ctx context.Context) (guestapi.AppInfo, error) {
	r, err := b.measured(ctx)
	if err != nil {
		return guestapi.AppInfo{}, err
	}
	device := sha256.Sum256(nil)
	shown := tcbInfo{
		MRAggregated: r.aggregated[:], OSImageHash: b.osImageHash(), ComposeHash: b.ComposeHash[:], DeviceID: device[:],
		EventLog: r.events, AppCompose: string(b.App.Raw()),
	}
	if t := r.tdx; t != nil {
		shown.MRTD, shown.RTMR0, shown.RTMR1, shown.RTMR2, shown.RTMR3 = &t.MRTD, &t.RTMR[0], &t.RTMR[1], &t.RTMR[2], &t.RTMR[3]
	}
	tcb, err := indented(shown)
	if err != nil {
		return guestapi.AppInfo{}, err
	}
	vendor, product := machineNames()
	info := guestapi.AppInfo{
		AppID: b.AppID[:], AppCert: b.appCert(ctx), TCBInfo: tcb, AppName: b.App.Name, DeviceID: device[:],
		MRAggregated: r.aggregated[:], OSImageHash: b.osImageHash(), KeyProviderInfo: string(b.KeyProvider),
		ComposeHash: b.ComposeHash[:], VMConfig: b.VMConfig, CloudVendor: vendor, CloudProduct: product, IgnoredKeys: b.App.Unknown,
	}
	if !b.InstanceID.IsZero() {
		info.InstanceID = b.InstanceID[:]
	}
	return info, nil
}

// indented keeps <, > and & as they are: app_compose is compared byte by byte.
func indented(v any) (string, error) {
	var buf bytes.Buffer
	e := json.NewEncoder(&buf)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(v); err != nil {
		return "", err
	}
	return string(bytes.TrimSpace(buf.Bytes())), nil
}

// PublicInfo is Info as strangers see it.
func (b *Backend) PublicInfo(ctx context.Context) (guestapi.AppInfo, error) {
	i, err := b.Info(ctx)
	if err == nil && !b.App.TCBInfoPublic() {
		i.TCBInfo, i.VMConfig, i.IgnoredKeys = "", "", nil // names are part of the document
	}
	return i, err
}

// PublicEvidence quotes a nonce, and what the caller binds, for anyone.
func (b *Backend) PublicEvidence(ctx context.Context, nonce, bound []byte) (guestapi.Evidence, error) {
	if len(nonce) < 8 || len(nonce) > 64 {
		return guestapi.Evidence{}, cvm.Errorf(cvm.Invalid, "nonce: want 8 to 64 bytes, got %d", len(nonce))
	}
	if len(bound) > 4096 {
		return guestapi.Evidence{}, cvm.Errorf(cvm.Invalid, "bound: %d bytes, the limit is 4096", len(bound))
	}
	ev, err := b.Evidence(ctx, guestapi.ReportDataEvidence(nonce, bound))
	if err != nil {
		return guestapi.Evidence{}, err
	}
	att, err := ev.Marshal()
	if err != nil {
		return guestapi.Evidence{}, err
	}
	return guestapi.Evidence{
		Attestation: att, AppCompose: string(b.App.Raw()), KMSRootCA: b.KMS.RootCA, KMSURLs: b.KMS.URLs,
		Receipt: b.Receipt, Bound: bound, EnvSigned: b.EnvSigned, HasEnv: b.HasEnv,
	}, nil
}
