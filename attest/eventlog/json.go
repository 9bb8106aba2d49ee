package eventlog

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"io"
	"unicode/utf8"

	"github.com/confidential-cloud/phala/cvm"
)

// maxJSON bounds a JSON event log, in bytes.
const maxJSON = 16 << 20

// wireEvent is one entry of the reference's JSON.
type wireEvent struct {
	IMR      uint32   `json:"imr"`
	Type     uint32   `json:"event_type"`
	Digest   hexBytes `json:"digest"`
	Name     string   `json:"event"`
	Payload  hexBytes `json:"event_payload"`
	Version  int      `json:"version,omitempty"`
	Preimage hexBytes `json:"preimage,omitempty"`
}

type hexBytes []byte

func (h hexBytes) MarshalText() ([]byte, error) { return []byte(hex.EncodeToString(h)), nil }

func (h *hexBytes) UnmarshalText(b []byte) error {
	v, err := hex.DecodeString(string(b))
	if err != nil {
		return cvm.Errorf(cvm.Invalid, "not hex")
	}
	*h = v
	return nil
}

// MarshalJSON writes the reference's form.
func (e Event) MarshalJSON() ([]byte, error) {
	w := wireEvent{IMR: e.IMR, Type: e.Type, Digest: e.Digest, Name: e.Name, Payload: e.Payload, Preimage: e.Preimage}
	if e.Version > 1 {
		w.Version = e.Version
	}
	return json.Marshal(w)
}

// UnmarshalJSON reads the reference's form strictly.
func (e *Event) UnmarshalJSON(b []byte) error {
	var w wireEvent
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&w); err != nil {
		return cvm.Errorf(cvm.Invalid, "event: %w", err)
	}
	*e = Event{IMR: w.IMR, Type: w.Type, Digest: w.Digest, Name: w.Name, Payload: w.Payload, Version: w.Version, Preimage: w.Preimage}
	return e.Validate()
}

// Validate bounds an entry of a foreign log.
func (e Event) Validate() error {
	switch {
	case e.IMR > 3:
		return cvm.Errorf(cvm.Invalid, "event in register %d, only RTMR0 to RTMR3 exist", e.IMR)
	case len(e.Digest) != 0 && len(e.Digest) != 48:
		return cvm.Errorf(cvm.Invalid, "event digest of %d bytes, want 48", len(e.Digest))
	case len(e.Name) > 4*MaxName || !utf8.ValidString(e.Name):
		return cvm.Errorf(cvm.Invalid, "event name too long or not UTF-8")
	case len(e.Payload) > MaxPayload || len(e.Preimage) > 3*MaxPayload:
		return cvm.Errorf(cvm.Invalid, "event %q: payload over %d bytes", trunc(e.Name), MaxPayload)
	case e.Version < 0 || e.Version > 2:
		return cvm.Errorf(cvm.Invalid, "event %q: unknown digest version %d", trunc(e.Name), e.Version)
	}
	return nil
}

// ParseJSON reads the JSON array of quote APIs. It stops at the first entry over
// MaxEvents: an entry can be written in three bytes, and takes a hundred in memory.
func ParseJSON(b []byte) ([]Event, error) {
	if len(b) > maxJSON {
		return nil, cvm.Errorf(cvm.Invalid, "event log: %d bytes, at most %d", len(b), maxJSON)
	}
	d := json.NewDecoder(bytes.NewReader(b))
	if t, err := d.Token(); err != nil || t != json.Delim('[') {
		return nil, cvm.Errorf(cvm.Invalid, "event log: not a JSON array")
	}
	var out []Event
	for d.More() {
		if len(out) == MaxEvents {
			return nil, cvm.Errorf(cvm.Invalid, "event log: over %d events, at most %d", len(out), MaxEvents)
		}
		var e Event
		if err := d.Decode(&e); err != nil {
			return nil, cvm.Errorf(cvm.Invalid, "event log: %w", err)
		}
		out = append(out, e)
	}
	if _, err := d.Token(); err != nil { // the end of the array
		return nil, cvm.Errorf(cvm.Invalid, "event log: %w", err)
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, cvm.Errorf(cvm.Invalid, "event log: data after the array")
	}
	return out, nil
}

// EncodeJSON writes the JSON array of quote APIs and tcb_info.event_log.
func EncodeJSON(events []Event) ([]byte, error) {
	if events == nil {
		events = []Event{}
	}
	return json.Marshal(events)
}
