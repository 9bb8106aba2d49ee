package attest

import (
	"github.com/confidential-cloud/phala/attest/claim"
	"github.com/confidential-cloud/phala/attest/eventlog"
	"github.com/confidential-cloud/phala/attest/nitro"
	"github.com/confidential-cloud/phala/cvm"
)

// V1 is msgpack with named fields in a fixed order:
// {version: 1, platform: {kind, data}, stack: {kind, data}} (dstack-core D.3).
// Platform kinds: tdx {quote, event_log}, sev-snp {report, cert_chain, mr_config},
// nitro-enclave {nsm_quote}, aws-nitro-tpm {attestation_doc}.
// Stack kinds: dstack {report_data, runtime_events, config}, dstack-pod with
// report_data_payload after them. quote, report, the certificates of cert_chain, the
// documents and report_data are arrays of integers, digests and payloads are bin.
// Written by hand because the form must be canonical, which general codecs do not
// offer: what does not re-encode to the same bytes is refused.
const (
	kindTDX      = "tdx"
	kindSNP      = "sev-snp"
	kindEnclave  = "nitro-enclave"
	kindNitroTPM = "aws-nitro-tpm"

	memberEnclave  = "nsm_quote"
	memberNitroTPM = "attestation_doc"

	stackDstack = "dstack"
	stackPod    = "dstack-pod"
)

func (e Evidence) marshalV1() []byte {
	var w mpWriter
	w.mapHeader(3)
	w.str("version")
	w.uint(1)
	w.str("platform")
	w.platform(e)
	w.str("stack")
	w.stack(e)
	return w.b
}

func (w *mpWriter) platform(e Evidence) {
	if e.isSNP() {
		w.kind(kindSNP)
		w.mapHeader(3)
		w.str("report")
		w.intArray(e.Report)
		w.str("cert_chain")
		w.arrayHeader(len(e.CertChain))
		for _, c := range e.CertChain {
			w.intArray(c)
		}
		w.str("mr_config")
		w.str(e.MRConfig)
		return
	}
	if e.isNitro() {
		kind, member := kindEnclave, memberEnclave
		if e.Variant == claim.VariantNitroTPM {
			kind, member = kindNitroTPM, memberNitroTPM
		}
		w.kind(kind)
		w.mapHeader(1)
		w.str(member)
		w.intArray(e.Document)
		return
	}
	w.kind(kindTDX)
	w.mapHeader(2)
	w.str("quote")
	w.intArray(e.Quote)
	w.str("event_log")
	w.arrayHeader(len(e.EventLog))
	for _, x := range e.EventLog {
		w.event(x)
	}
}

func (w *mpWriter) stack(e Evidence) {
	kind, n := stackDstack, 3
	if e.PodPayload != nil {
		kind, n = stackPod, 4
	}
	w.kind(kind)
	w.mapHeader(n)
	w.str("report_data")
	w.intArray(e.ReportData[:])
	w.str("runtime_events")
	w.arrayHeader(len(e.RuntimeEvents))
	for _, r := range e.RuntimeEvents {
		w.runtime(r)
	}
	w.str("config")
	w.str(e.Config)
	if e.PodPayload != nil {
		w.str("report_data_payload")
		w.str(*e.PodPayload)
	}
}

func (w *mpWriter) kind(k string) {
	w.mapHeader(2)
	w.str("kind")
	w.str(k)
	w.str("data")
}

func (w *mpWriter) event(x eventlog.Event) {
	n := 5
	if x.Version > 1 {
		n++
	}
	if len(x.Preimage) > 0 {
		n++
	}
	w.mapHeader(n)
	w.str("imr")
	w.uint(uint64(x.IMR))
	w.str("event_type")
	w.uint(uint64(x.Type))
	w.str("digest")
	w.bin(x.Digest)
	w.str("event")
	w.str(x.Name)
	w.str("event_payload")
	w.bin(x.Payload)
	if x.Version > 1 {
		w.str("version")
		w.uint(uint64(x.Version)) //nolint:gosec // 2
	}
	if len(x.Preimage) > 0 {
		w.str("preimage")
		w.bin(x.Preimage)
	}
}

func (w *mpWriter) runtime(r eventlog.Runtime) {
	n := 2
	if r.Version > 1 {
		n++
	}
	w.mapHeader(n)
	w.str("event")
	w.str(r.Name)
	w.str("payload")
	w.bin(r.Payload)
	if r.Version > 1 {
		w.str("version")
		w.uint(uint64(r.Version)) //nolint:gosec // 2
	}
}

func parseV1(b []byte) (Evidence, error) {
	r := &mpReader{reader{b: b}}
	ev := Evidence{Encoding: EncodingV1}
	r.mapOf(3)
	r.key("version")
	if v := r.uint(); !r.bad && v != 1 {
		return ev, cvm.Errorf(cvm.Unsupported, "attestation: version %d", v)
	}
	r.key("platform")
	switch k := r.kind(); {
	case r.bad:
	case k == kindTDX:
		ev.Variant = cvm.VariantTDX
		r.tdx(&ev)
	case k == kindSNP:
		ev.Variant = cvm.VariantSNP
		r.snp(&ev)
	case k == kindEnclave:
		ev.Variant = claim.VariantNitroEnclave
		r.document(&ev, memberEnclave)
	case k == kindNitroTPM:
		ev.Variant = claim.VariantNitroTPM
		r.document(&ev, memberNitroTPM)
	default:
		return ev, notHere(k)
	}
	r.key("stack")
	switch k := r.kind(); {
	case r.bad:
	case k == stackDstack:
		r.stack(&ev, 3)
	case k == stackPod:
		r.stack(&ev, 4)
	default:
		return ev, cvm.Errorf(cvm.Unsupported, "attestation: stack %.40q is not supported", k)
	}
	if r.bad || len(r.b) != 0 {
		return ev, cvm.Errorf(cvm.Invalid, "attestation: malformed or truncated msgpack, or bytes after it")
	}
	return ev, nil
}

func (r *mpReader) tdx(ev *Evidence) {
	r.mapOf(2)
	r.key("quote")
	ev.Quote = r.intArray(maxQuote)
	r.key("event_log")
	for range r.array(eventlog.MaxEvents) {
		x := r.event()
		if r.bad {
			break
		}
		ev.EventLog = append(ev.EventLog, x)
	}
}

func (r *mpReader) snp(ev *Evidence) {
	r.mapOf(3)
	r.key("report")
	ev.Report = r.intArray(maxQuote)
	r.key("cert_chain")
	for range r.array(maxCerts) {
		c := r.intArray(maxCert)
		if r.bad {
			break
		}
		ev.CertChain = append(ev.CertChain, c)
	}
	r.key("mr_config")
	ev.MRConfig = r.str()
}

func (r *mpReader) document(ev *Evidence, member string) {
	r.mapOf(1)
	r.key(member)
	ev.Document = r.intArray(nitro.MaxDocument)
}

func (r *mpReader) stack(ev *Evidence, members int) {
	r.mapOf(members)
	r.key("report_data")
	if d := r.intArray(64); len(d) == 64 {
		ev.ReportData = [64]byte(d)
	} else {
		r.bad = true
	}
	r.key("runtime_events")
	for range r.array(eventlog.MaxEvents) {
		x := r.runtime()
		if r.bad {
			break
		}
		ev.RuntimeEvents = append(ev.RuntimeEvents, x)
	}
	r.key("config")
	ev.Config = r.str()
	if members == 4 {
		r.key("report_data_payload")
		payload := r.str()
		ev.PodPayload = &payload
	}
}

func (r *mpReader) kind() string {
	r.mapOf(2)
	r.key("kind")
	k := r.str()
	r.key("data")
	return k
}

func (r *mpReader) event() (x eventlog.Event) {
	n := r.mapHeader()
	if n < 5 || n > 7 {
		r.bad = true
		return x
	}
	r.key("imr")
	x.IMR = r.u32()
	r.key("event_type")
	x.Type = r.u32()
	r.key("digest")
	x.Digest = r.bin()
	r.key("event")
	x.Name = r.str()
	r.key("event_payload")
	x.Payload = r.bin()
	for range n - 5 {
		switch r.str() {
		case "version":
			x.Version = int(r.u32())
		case "preimage":
			x.Preimage = r.bin()
		default:
			r.bad = true
		}
	}
	return x
}

func (r *mpReader) runtime() (x eventlog.Runtime) {
	n := r.mapHeader()
	if n != 2 && n != 3 {
		r.bad = true
		return x
	}
	r.key("event")
	x.Name = r.str()
	r.key("payload")
	x.Payload = r.bin()
	if n == 3 {
		r.key("version")
		x.Version = int(r.u32())
	}
	return x
}
