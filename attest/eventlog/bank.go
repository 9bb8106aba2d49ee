package eventlog

import (
	"crypto"
	"fmt"

	"github.com/confidential-cloud/phala/cvm"
)

// ReplayBank replays the events into a zero PCR of a TPM's bank: the digests of
// Runtime.Digest, made with the bank's hash. With SHA-384 it is ReplayRuntime. The
// hash must be linked in. Events are validated.
func ReplayBank(events []Runtime, bank crypto.Hash) ([]byte, error) {
	if !bank.Available() {
		return nil, cvm.Errorf(cvm.Invalid, "a PCR bank with an unknown hash")
	}
	if len(events) > MaxEvents {
		return nil, cvm.Errorf(cvm.Invalid, "%d runtime events, at most %d", len(events), MaxEvents)
	}
	pcr := make([]byte, bank.Size())
	for i, e := range events {
		if err := e.Validate(); err != nil {
			return nil, fmt.Errorf("runtime event %d: %w", i, err)
		}
		h := bank.New()
		h.Write(e.appendHashed(nil))
		d := h.Sum(nil)
		h.Reset()
		h.Write(pcr)
		h.Write(d)
		pcr = h.Sum(nil)
	}
	return pcr, nil
}
