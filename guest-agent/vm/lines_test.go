package vm

import (
	"slices"
	"strings"
	"testing"
)

// What no test of behaviour shows: each line here was once taken out, and nothing
// failed.
func TestHardeningIsWritten(t *testing.T) {
	for _, want := range [][2]string{{"kernel/core_pattern", "|/bin/false"}, {"fs/suid_dumpable", "0"}, {"kernel/kexec_load_disabled", "1"},
		{"net/ipv4/conf/all/accept_redirects", "0"}, {"net/ipv6/conf/all/accept_redirects", "0"}} {
		if !slices.Contains(sysctls(), want) {
			t.Errorf("%s is not set to %s", want[0], want[1])
		}
	}
	table := Rules{Cards: []string{"eth0"}}.Table()
	for _, want := range []string{"ct state invalid drop\n", "{ nd-router-advert, nd-neighbor-solicit, nd-neighbor-advert } ip6 hoplimit 255 accept\n",
		"ip6 saddr fe80::/10 udp sport 547 udp dport 546 accept\n"} {
		if !strings.Contains(table, want) {
			t.Errorf("the filter has no %q:\n%s", want, table)
		}
	}
}
