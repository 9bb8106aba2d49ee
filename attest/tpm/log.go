package tpm

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/confidential-cloud/phala/attest/claim"
	"github.com/confidential-cloud/phala/cvm"
)

// Limits and constants of the TCG PC Client Platform Firmware Profile's log.
const (
	MaxLog    = 1 << 20 // bytes
	maxEvents = 4096
	maxAlgs   = 8

	evNoAction     = 3
	evEFIBootApp   = 0x80000003 // an application, measured as Authenticode hashes it
	specID         = "Spec ID Event03\x00"
	firmwarePCRs   = 8 // PCR0-7 are the firmware's
	kernelPCR      = 2 // where Google's firmware measures the image it starts
	kernelPosition = 2 // the third event of PCR2
)

// LogEvent is one entry of the firmware's log.
type LogEvent struct {
	PCR     int
	Type    uint32
	Digests map[Alg][]byte
	Data    []byte
}

// ParseLog reads a crypto-agile log (TCG2), with padding of zeros or of 0xff. The log
// is untrusted until it replays to quoted registers.
func ParseLog(b []byte) ([]LogEvent, error) {
	if len(b) > MaxLog {
		return nil, refuseLog("%d bytes, at most %d", len(b), MaxLog)
	}
	r := &logReader{reader{b: b}}
	algs, err := r.specID()
	if err != nil {
		return nil, err
	}
	var out []LogEvent
	for !r.padding() {
		if len(out) == maxEvents {
			return nil, refuseLog("more than %d events", maxEvents)
		}
		e := LogEvent{PCR: int(r.u32()), Type: r.u32(), Digests: map[Alg][]byte{}}
		if n := int(r.u32()); n != len(algs) {
			return nil, refuseLog("an event with %d digests, want %d", n, len(algs))
		}
		for range algs {
			alg := Alg(r.u16())
			size, ok := algs[alg]
			if _, twice := e.Digests[alg]; !ok || twice {
				return nil, refuseLog("a digest of algorithm %#x", uint16(alg))
			}
			e.Digests[alg] = r.take(size)
		}
		e.Data = r.take(int(r.u32()))
		if r.bad || e.PCR >= numPCRs {
			return nil, refuseLog("event %d is cut, or for PCR%d", len(out), e.PCR)
		}
		out = append(out, e)
	}
	return out, nil
}

// Replay computes a register of one bank from the log.
func Replay(events []LogEvent, pcr int, bank Alg) ([]byte, error) {
	h := bank.hash()
	if h == 0 {
		return nil, refuseLog("bank %#x", uint16(bank))
	}
	mr := make([]byte, h.Size())
	for i, e := range events {
		if e.PCR != pcr || e.Type == evNoAction {
			continue
		}
		d, ok := e.Digests[bank]
		if !ok || len(d) != h.Size() {
			return nil, refuseLog("event %d has no digest of bank %#x", i, uint16(bank))
		}
		x := h.New()
		x.Write(mr)
		x.Write(d)
		mr = x.Sum(nil)
	}
	return mr, nil
}

// boot compares the firmware's log with the quoted registers and, if the policy names
// kernels, finds out which one was started: on Google's machines the third event of
// PCR2 is the Authenticode digest of the unified kernel image (the reference's rule).
func (v *verifier) boot() {
	if len(v.ev.BootLog) == 0 && len(v.p.Kernels) == 0 {
		return
	}
	if !v.rec.Passed(claim.TPMPCRDigest) {
		v.rec.Skip(claim.TPMBootLog, "the PCR values are not those quoted")
		return
	}
	events, err := ParseLog(v.ev.BootLog)
	if err != nil {
		v.rec.Fail(claim.TPMBootLog, "", "", err.Error())
		return
	}
	n := 0
	for pcr := range firmwarePCRs {
		if !v.q.Has(pcr) {
			continue
		}
		got, err := Replay(events, pcr, v.q.Bank)
		if err != nil || !bytes.Equal(got, v.out.PCRs[pcr]) {
			v.rec.Fail(claim.TPMBootLog, short(v.out.PCRs[pcr]), short(got), fmt.Sprintf("PCR%d does not replay", pcr))
			return
		}
		n++
	}
	if n == 0 {
		v.rec.Fail(claim.TPMBootLog, "", "", "none of PCR0-7 is quoted")
		return
	}
	v.rec.Pass(claim.TPMBootLog, fmt.Sprintf("%d registers", n))
	if len(v.p.Kernels) > 0 {
		v.kernel(events)
	}
}

func (v *verifier) kernel(events []LogEvent) {
	events = slices.DeleteFunc(slices.Clone(events), func(e LogEvent) bool { return e.PCR != kernelPCR || e.Type == evNoAction })
	if !v.q.Has(kernelPCR) || len(events) <= kernelPosition || events[kernelPosition].Type != evEFIBootApp {
		v.rec.Fail(claim.TPMKernel, "an application as third event of PCR2", "none", "the log does not say which kernel was started")
		return
	}
	got := events[kernelPosition].Digests[v.q.Bank]
	if !slices.ContainsFunc(v.p.Kernels, func(k []byte) bool { return bytes.Equal(k, got) }) {
		v.rec.Fail(claim.TPMKernel, "an admitted kernel", short(got), "the policy does not admit this kernel")
		return
	}
	v.rec.Pass(claim.TPMKernel, short(got))
	v.out.Kernel = got
}

// logReader takes little-endian fields.
type logReader struct{ reader }

func (r *logReader) u16() uint16 { return binary.LittleEndian.Uint16(r.take(2)) }
func (r *logReader) u32() uint32 { return binary.LittleEndian.Uint32(r.take(4)) }

// specID reads the first entry, in the old form, which names the digests' sizes.
func (r *logReader) specID() (map[Alg]int, error) {
	pcr, typ := r.u32(), r.u32()
	r.take(20)
	spec := &logReader{reader{b: r.take(int(r.u32()))}}
	if r.bad || pcr != 0 || typ != evNoAction || string(spec.take(16)) != specID {
		return nil, refuseLog("does not begin with a Spec ID event")
	}
	spec.take(8) // platform class, versions, size of UINTN
	n := int(spec.u32())
	algs := map[Alg]int{}
	for range min(n, maxAlgs+1) {
		alg, size := Alg(spec.u16()), int(spec.u16())
		want := 20
		if h := alg.hash(); h != 0 {
			want = h.Size()
		}
		if alg.hash() == 0 && alg != SHA1 || size != want {
			return nil, refuseLog("digest algorithm %#x of %d bytes", uint16(alg), size)
		}
		algs[alg] = size
	}
	if spec.take(int(spec.u8())); spec.bad || len(spec.b) != 0 || n == 0 || n > maxAlgs || len(algs) != n {
		return nil, refuseLog("a malformed Spec ID event")
	}
	return algs, nil
}

// padding reports whether nothing but one fill byte follows.
func (r *logReader) padding() bool {
	if len(r.b) == 0 {
		return true
	}
	fill := r.b[0]
	return (fill == 0 || fill == 0xff) && !slices.ContainsFunc(r.b, func(b byte) bool { return b != fill })
}

func refuseLog(format string, args ...any) error {
	return cvm.Errorf(cvm.Invalid, "boot log: "+format, args...)
}
