package compose

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/confidential-cloud/phala/appcompose"
	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/guest-agent/guestapi"
)

// TestNetworksOfTheCardsAreNotTheApps, as Compose itself reads the file.
func TestNetworksOfTheCardsAreNotTheApps(t *testing.T) {
	e := realCompose(t)
	e.cfg.Taken = func() ([]netip.Prefix, error) {
		return []netip.Prefix{netip.MustParsePrefix("10.0.2.0/24"), netip.MustParsePrefix("fd00:77::/64")}, nil
	}
	const text = "services:\n  web:\n    image: a\n    networks: [back]\nnetworks:\n  back:\n    ipam:\n      config:\n"
	for subnet, free := range map[string]bool{
		"10.0.2.0/24": false, "10.0.2.128/25": false, "10.0.0.0/8": false, "10.0.2.2/32": false, "fd00:77::/64": false, "fd00:77::5:0/112": false, "fd00::/16": false,
		"10.0.3.0/24": true, "192.168.7.0/24": true, "fd00:78::/64": true, "${NET}": false,
	} {
		m := e.modelOf(t, strings.Replace(text+"        - subnet: "+subnet+"\n", "${NET}", "10.0.${NET:-2}.0/24", 1))
		err := e.ownNetworks(m)
		if (err == nil) != free || (err != nil && (cvm.ReasonOf(err) != ReasonNetworks || !strings.Contains(err.Error(), "network back"))) {
			t.Errorf("%s: %v", subnet, err)
		}
	}
	// An update is refused before anything is pulled, and what runs keeps running.
	err := e.Prepare(t.Context(), &appcompose.Document{DockerComposeFile: text + "        - subnet: 10.0.2.0/25\n"}, nil, func(guestapi.PullProgress) {})
	if cvm.ReasonOf(err) != ReasonNetworks {
		t.Errorf("prepare: %v", err)
	}
	broken := errors.New("no routes")
	e.cfg.Taken = func() ([]netip.Prefix, error) { return nil, broken }
	if err := e.ownNetworks(e.modelOf(t, text+"        - subnet: 10.9.0.0/24\n")); !errors.Is(err, broken) {
		t.Errorf("unknown routes: %v", err)
	}
	if err := e.ownNetworks(e.modelOf(t, "services:\n  web:\n    image: a\n")); err != nil {
		t.Errorf("no network of its own: %v", err)
	}
}
