package eventlog_test

import (
	"runtime"
	"strings"
	"testing"

	"github.com/confidential-cloud/phala/attest/eventlog"
)

// A stranger's log of three bytes an entry costs no more than the entries that a log
// may have.
func TestJSONLogIsBounded(t *testing.T) {
	log := []byte("[" + strings.Repeat("{},", 2<<20) + "{}]") // 6 MiB
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err := eventlog.ParseJSON(log)
	runtime.ReadMemStats(&after)
	refused(t, "2 million entries", err, "at most 4096")
	if n := after.TotalAlloc - before.TotalAlloc; n > 2*uint64(len(log)) {
		t.Errorf("%d bytes were allocated for %d", n, len(log))
	}
}
