package api

import (
	"strings"
	"testing"
	"time"

	"github.com/confidential-cloud/phala/api/cloudapi"
	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/vmm/vmmapi"
)

// TestConfidence: only a proof that holds, of a processor's vendor, of the device that
// the node says it is, makes it genuine; nothing makes a simulated one more.
func TestConfidence(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	device := cvm.DeviceID{7}
	for name, x := range map[string]struct {
		proof     func(*cloudapi.NodeProof)
		info      vmmapi.Node
		none      bool
		want, why string
	}{
		"tdx":                          {want: "genuine"},
		"sev-snp":                      {proof: func(p *cloudapi.NodeProof) { p.Platform = "sev-snp" }, want: "genuine"},
		"the node says its device":     {info: vmmapi.Node{DeviceID: device}, want: "genuine"},
		"no proof":                     {none: true, want: "unverified", why: "not proved"},
		"no proof, no TEE":             {none: true, info: vmmapi.Node{Simulated: true}, want: "simulated", why: "no TEE"},
		"a proof, and no TEE":          {info: vmmapi.Node{Simulated: true}, want: "simulated", why: "no TEE"},
		"its last millisecond":         {proof: func(p *cloudapi.NodeProof) { p.ExpiresAt = now.Add(time.Millisecond) }, want: "genuine"},
		"ended":                        {proof: func(p *cloudapi.NodeProof) { p.ExpiresAt = now }, want: "unverified", why: "ended at 2026-01-02T03:04:05Z"},
		"another device":               {info: vmmapi.Node{DeviceID: cvm.DeviceID{8}}, want: "unverified", why: "says that it is device 08"},
		"simulated":                    {proof: func(p *cloudapi.NodeProof) { p.Platform, p.Simulated = "simulated", true }, want: "simulated", why: "simulated platform"},
		"simulated, and ended":         {proof: func(p *cloudapi.NodeProof) { p.Platform, p.Simulated, p.ExpiresAt = "simulated", true, now }, want: "simulated", why: "simulated platform"},
		"another root":                 {proof: func(p *cloudapi.NodeProof) { p.Platform = "custom" }, want: "unverified", why: "custom"},
		"a hypervisor's word":          {proof: func(p *cloudapi.NodeProof) { p.Platform = "aws-nitro" }, want: "unverified", why: "aws-nitro"},
		"a platform that nobody knows": {proof: func(p *cloudapi.NodeProof) { p.Platform = "" }, want: "unverified"},
	} {
		n := &node{}
		if !x.none {
			n.proof = &cloudapi.NodeProof{Platform: "tdx", DeviceID: device.String(), ExpiresAt: now.Add(time.Hour)}
			if x.proof != nil {
				x.proof(n.proof)
			}
		}
		if got, why := n.confidence(&x.info, now); got.String() != x.want || !strings.Contains(why, x.why) {
			t.Errorf("%s: %s (%s), want %s (%s)", name, got, why, x.want, x.why)
		}
	}
}
