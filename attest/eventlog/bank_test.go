package eventlog_test

import (
	"bytes"
	"crypto"
	_ "crypto/sha256" // linked in: the banks
	_ "crypto/sha512"
	"testing"

	"github.com/confidential-cloud/phala/attest/eventlog"
)

func TestReplayBank(t *testing.T) {
	events := []eventlog.Runtime{{Name: "app-id", Payload: []byte{1}}, {Name: "x", Payload: []byte{2}, Version: 2}}
	want, err := eventlog.ReplayRuntime(events)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := eventlog.ReplayBank(events, crypto.SHA384); err != nil || !bytes.Equal(got, want[:]) {
		t.Errorf("%x %v, want %x", got, err, want)
	}
	if got, err := eventlog.ReplayBank(events, crypto.SHA256); err != nil || len(got) != 32 {
		t.Errorf("%x %v", got, err)
	}
	for name, tc := range map[string]struct {
		events []eventlog.Runtime
		bank   crypto.Hash
	}{
		"hash that is not linked in": {events, crypto.RIPEMD160}, "no hash": {events, 0},
		"a name with a colon": {[]eventlog.Runtime{{Name: "a:b"}}, crypto.SHA256},
	} {
		if got, err := eventlog.ReplayBank(tc.events, tc.bank); err == nil {
			t.Errorf("%s: %x", name, got)
		}
	}
	many := make([]eventlog.Runtime, eventlog.MaxEvents+1)
	for i := range many {
		many[i].Name = "x"
	}
	if _, err := eventlog.ReplayBank(many, crypto.SHA256); err == nil {
		t.Error("too many events are replayed")
	}
	if _, err := eventlog.ReplayBank(many[:1], crypto.SHA256); err != nil {
		t.Error(err)
	}
}
