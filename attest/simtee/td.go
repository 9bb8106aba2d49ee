package simtee

import (
	"context"
	"crypto/hkdf"
	"crypto/sha256"
	"regexp"
	"slices"
	"sync"

	"github.com/confidential-cloud/phala/attest/eventlog"
	"github.com/confidential-cloud/phala/cvm"
)

// Shape is what a TD starts with.
type Shape struct {
	MRTD       cvm.Measurement    `json:"mrtd"`
	RTMR       [3]cvm.Measurement `json:"rtmr"` // RTMR0-2 as the firmware left them
	MRConfigID cvm.Measurement    `json:"mr_config_id"`
	Attributes uint64             `json:"attributes"` // 0: DefaultAttributes
	XFAM       uint64             `json:"xfam"`       // 0: DefaultXFAM
	CCEL       []byte             `json:"ccel"`
	// MRServiceTD appears in version 5 quotes only; not zero is for tests.
	MRServiceTD cvm.Measurement `json:"mr_service_td"`
	// SockMode is the mode of the device socket: 0600 (also when 0) or 0666.
	SockMode uint32 `json:"sock_mode,omitempty"`
}

// What a sound TD has.
const (
	DefaultAttributes uint64 = 1 << 28 // SEPT_VE_DISABLE
	DefaultXFAM       uint64 = 0x602e7
	AttributeDebug    uint64 = 1
)

// TD is a trust domain. Its methods are those of Device; it is safe for
// concurrent use.
type TD struct {
	h    *Hardware
	name string
	srv  *server // nil for a TD of this process

	mu    sync.Mutex
	shape Shape
	rtmr3 cvm.Measurement
	dead  bool
}

// maxTDs and maxCCEL bound what one machine holds; CCEL in bytes.
const (
	maxTDs  = 4096
	maxCCEL = 1 << 20
)

func nameOK(s string) bool {
	return regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9._-]{0,127}$`).MatchString(s)
}

// NewTD starts a TD in this process, without sockets. A name in use is a conflict.
func (h *Hardware) NewTD(name string, s Shape) (*TD, error) {
	if !nameOK(name) {
		return nil, cvm.Errorf(cvm.Invalid, "TD name %.40q: want 1 to 128 of a-z, A-Z, 0-9, '.', '_', '-'", name)
	}
	if len(s.CCEL) > maxCCEL {
		return nil, cvm.Errorf(cvm.Invalid, "TD %s: CCEL of %d bytes, at most %d", name, len(s.CCEL), maxCCEL)
	}
	if s.SockMode != 0 && s.SockMode != 0o600 && s.SockMode != 0o666 {
		return nil, cvm.Errorf(cvm.Invalid, "TD %s: socket mode %#o, want 0600 or 0666", name, s.SockMode)
	}
	if s.Attributes == 0 {
		s.Attributes = DefaultAttributes
	}
	if s.XFAM == 0 {
		s.XFAM = DefaultXFAM
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.freeLocked(name); err != nil {
		return nil, err
	}
	td := &TD{h: h, name: name, shape: s}
	h.tds[name] = td
	return td, nil
}

// DestroyTD ends a TD or a SEV-SNP guest: its registers are gone and its device answers
// no more. An unknown name is not_found.
func (h *Hardware) DestroyTD(name string) error {
	h.mu.Lock()
	td := h.tds[name]
	snp := h.snps[name]
	delete(h.tds, name)
	delete(h.snps, name)
	h.mu.Unlock()
	if snp != nil {
		snp.srv.close()
		return nil
	}
	if td == nil {
		return cvm.Errorf(cvm.NotFound, "no TD %.40q", name)
	}
	td.mu.Lock()
	td.dead = true
	srv := td.srv
	td.mu.Unlock()
	if srv != nil {
		srv.close()
	}
	return nil
}

func (t *TD) locked(fn func() error) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.dead {
		return cvm.Errorf(cvm.Unavailable, "TD %s was destroyed", t.name)
	}
	return fn()
}

// Quote signs a version 4 quote over report data and the present registers.
func (t *TD) Quote(_ context.Context, reportData [64]byte) (q []byte, err error) {
	var body []byte
	err = t.locked(func() error {
		body = t.h.report(t.shape, t.rtmr3, reportData)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return t.h.quote(body)
}

// Extend extends RTMR2 or RTMR3; the others belong to the firmware.
func (t *TD) Extend(_ context.Context, index int, digest cvm.Measurement) error {
	return t.locked(func() error {
		switch index {
		case 2:
			t.shape.RTMR[2] = eventlog.Extend(t.shape.RTMR[2], digest)
		case 3:
			t.rtmr3 = eventlog.Extend(t.rtmr3, digest)
		default:
			return cvm.Errorf(cvm.Denied, "RTMR%d cannot be extended by the guest", index)
		}
		return nil
	})
}

// CCEL returns the firmware's event log (table data).
func (t *TD) CCEL(context.Context) (b []byte, err error) {
	return b, t.locked(func() error { b = slices.Clone(t.shape.CCEL); return nil })
}

// SealKey derives 32 bytes from the hardware's secret, MRTD, RTMR0-3 as they are
// now, and context: the same code in the same phase of its boot on the same machine
// gets the same key. Without RTMR3, any app of the same image would get it.
func (t *TD) SealKey(_ context.Context, context []byte) (key []byte, err error) {
	var info []byte
	err = t.locked(func() error {
		info = append([]byte("phala-simtee-seal:v2:"), t.shape.MRTD[:]...)
		for _, r := range t.shape.RTMR {
			info = append(info, r[:]...)
		}
		info = append(info, t.rtmr3[:]...)
		return nil
	})
	if err != nil {
		return nil, err
	}
	secret, err := t.h.derive(keySeal, 32)
	if err != nil {
		return nil, err
	}
	c := sha256.Sum256(context)
	return hkdf.Key(sha256.New, secret, nil, string(append(info, c[:]...)), 32)
}
