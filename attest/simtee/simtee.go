// Package simtee is a software TEE: a vendor with its own root, a machine of that
// vendor, and TDs whose runtime registers only ever extend. Quotes, certificates,
// collateral and revocation lists have the genuine formats, so that the production
// verifier runs unchanged. It proves nothing about hardware: only a policy that
// names its root admits it, as the simulated platform.
//
// The machine runs apart from what it measures: New and Hardware.Run serve a
// control socket (Control) for the VMM and one device socket (Device) per TD.
// Tests use Hardware.NewTD and Hardware.Boot without sockets.
package simtee

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/confidential-cloud/phala/attest/collateral"
	"github.com/confidential-cloud/phala/cvm"
)

// Config of the simulated machine.
type Config struct {
	Dir            string           // state: the seed file (0600). Empty: Seed must be set and nothing is stored
	Seed           []byte           // 32 bytes; empty: read from Dir, made at first start
	Machine        string           // names another machine of the same vendor (same seed); "" is the first
	ControlSock    string           // unix socket of the control API; empty: not served
	CollateralAddr string           // TCP address of the collateral service; empty: not served
	FMSPC          string           // 12 hex digits: the processor model; "": a fixed one
	QuoteVersion   int              // 4 (also when 0), or 5 with a TD 1.5 body
	SNP            bool             // the machine also starts SEV-SNP guests, of the same seed
	Clock          func() time.Time // nil: time.Now
	Log            *slog.Logger     // nil: discarded
	Faults         Faults           // bad evidence on purpose, for tests
}

// Faults makes the vendor or the platform misbehave, so that tests can show the
// refusals. The zero value is a healthy platform.
type Faults struct {
	TCBStatus     string   // status of the matching platform TCB level; "" is UpToDate
	Advisories    []string // of that level
	ModuleStatus  string   // status of the TDX module's level
	QEStatus      string   // status of the QE's level
	RevokePCK     bool     // the PCK certificate is on the PCK CA's list
	RevokeCA      bool     // the PCK CA certificate is on the root's list
	RevokeTCB     bool     // the TCB signing certificate is on the root's list
	NoMatchingTCB bool     // every level asks for more than the platform has
	Expired       bool     // collateral ended a day ago
	Future        bool     // collateral begins in a day
	OtherFMSPC    bool     // TCB info for another FMSPC
	OtherPCEID    bool     // TCB info for another PCE
	SignedByCA    bool     // collateral signed by the PCK CA instead of the TCB signer
	SeamSigner    bool     // quotes name a TDX module of another signer
	SeamAttribute uint64   // quotes name these SEAMATTRIBUTES
	ModuleMajor   byte     // quotes name this TDX module; 0: the listed one

	// Statement edits the TCB info ("tcbInfo") or QE identity ("enclaveIdentity")
	// before the vendor signs it; nil leaves it. Body edits a TD report before it is
	// signed into a quote.
	Statement func(name string, json []byte) []byte
	Body      func(report []byte)

	// Read by New only:
	QE         QEFault // the quoting enclave's fault
	SignerName string  // common name of the TCB signing certificate; "" is Intel's
	// QEReport edits the quoting enclave's report before the processor signs it.
	QEReport func(report []byte)
}

// QEFault is what is wrong with the quoting enclave; its report is genuinely signed.
type QEFault string

const (
	QEDebug       QEFault = "debug"
	QEOtherSigner QEFault = "signer"
	QEProduct     QEFault = "product"
	QETooOld      QEFault = "too-old" // below every level
	QEVendor      QEFault = "vendor"  // the quote header names another vendor
	QEReportData  QEFault = "report-data"
)

// seedSize is the size of a seed, in bytes.
const seedSize = 32

// Hardware is the machine and its vendor.
type Hardware struct {
	cfg    Config
	now    func() time.Time
	log    *slog.Logger
	seed   []byte
	keys   map[string]*ecdsa.PrivateKey
	certs  map[string]*x509.Certificate
	pem    map[string][]byte
	ppid   []byte
	ready  chan struct{}
	qePart []byte // what follows the attestation key in every quote
	amd    *AMD   // nil unless Config.SNP

	mu     sync.Mutex
	faults Faults
	tds    map[string]*TD
	snps   map[string]*snpServer
	addr   string // of the collateral service
}

// New makes the vendor's and the machine's keys from the seed.
func New(cfg Config) (*Hardware, error) {
	h := &Hardware{cfg: cfg, now: cfg.Clock, log: cfg.Log, faults: cfg.Faults, tds: map[string]*TD{}, snps: map[string]*snpServer{}, ready: make(chan struct{})}
	if h.now == nil {
		h.now = time.Now
	}
	if h.log == nil {
		h.log = slog.New(slog.DiscardHandler)
	}
	if cfg.QuoteVersion != 0 && cfg.QuoteVersion != 4 && cfg.QuoteVersion != 5 {
		return nil, cvm.Errorf(cvm.Invalid, "simulated TEE: quote version %d, want 4 or 5", cfg.QuoteVersion)
	}
	if h.cfg.FMSPC == "" {
		h.cfg.FMSPC = fmspcHex
	}
	if b, err := hex.DecodeString(h.cfg.FMSPC); err != nil || len(b) != 6 {
		return nil, cvm.Errorf(cvm.Invalid, "simulated TEE: FMSPC %q, want 12 hex digits", cfg.FMSPC)
	}
	seed, err := loadSeed(cfg)
	if err != nil {
		return nil, err
	}
	h.seed = seed
	if cfg.SNP {
		if h.amd, err = newAMD(AMDConfig{Machine: cfg.Machine, Clock: h.now}, seed, newRing()); err != nil {
			return nil, err
		}
	}
	if err := h.makePKI(); err != nil {
		return nil, fmt.Errorf("simulated TEE: %w", err)
	}
	if err := h.makeQE(); err != nil {
		return nil, fmt.Errorf("simulated TEE: %w", err)
	}
	return h, nil
}

// loadSeed takes the configured seed, or that of an earlier start, or a new one.
// The file is written whole or not at all: half a seed would be another machine.
func loadSeed(cfg Config) ([]byte, error) {
	if len(cfg.Seed) != 0 {
		if len(cfg.Seed) != seedSize {
			return nil, cvm.Errorf(cvm.Invalid, "simulated TEE: seed of %d bytes, want %d", len(cfg.Seed), seedSize)
		}
		return append([]byte{}, cfg.Seed...), nil
	}
	if cfg.Dir == "" {
		return nil, cvm.Errorf(cvm.Invalid, "simulated TEE: neither a seed nor a directory to keep one in")
	}
	path := filepath.Join(cfg.Dir, "seed")
	seed, err := os.ReadFile(path) //nolint:gosec // the operator's own directory
	if err == nil && len(seed) == seedSize {
		return seed, nil
	}
	if err == nil {
		return nil, cvm.Errorf(cvm.Precondition, "simulated TEE: %s holds %d bytes, want %d", path, len(seed), seedSize).
			WithFix("restore the file from a backup; removing it makes another machine, whose guests cannot open their disks")
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("simulated TEE: reading the seed: %w", err)
	}
	seed = make([]byte, seedSize)
	_, _ = rand.Read(seed) // never fails
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("simulated TEE: %w", err)
	}
	if err := writeNew(path, seed); err != nil {
		return nil, fmt.Errorf("simulated TEE: storing the seed: %w", err)
	}
	return seed, nil
}

func writeNew(path string, b []byte) error {
	tmp := path + ".new"
	f, err := os.OpenFile(tmp, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600) //nolint:gosec // the operator's own directory
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	return os.Rename(tmp, path)
}

// Ready is closed when Run serves everything that is configured.
func (h *Hardware) Ready() <-chan struct{} { return h.ready }

// RootSPKI is the sha256 of the vendor root's SubjectPublicKeyInfo: what a policy
// names to admit this machine's vendor.
func (h *Hardware) RootSPKI() [32]byte { return collateral.SPKIHash(h.certs[certRoot]) }

// RootPEM is the vendor root certificate.
func (h *Hardware) RootPEM() []byte { return append([]byte{}, h.pem[certRoot]...) }

// DeviceID is sha256 of the machine's PPID.
func (h *Hardware) DeviceID() cvm.DeviceID { return sha256.Sum256(h.ppid) }

// CollateralURL is the base URL of the collateral service once Ready; "" when it
// is not served.
func (h *Hardware) CollateralURL() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.addr == "" {
		return ""
	}
	return "http://" + h.addr
}
