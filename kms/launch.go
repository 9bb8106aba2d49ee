package kms

import (
	"encoding/json"

	"github.com/confidential-cloud/phala/appcompose"
	"github.com/confidential-cloud/phala/attest/claim"
	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/kms/keyring"
	"github.com/confidential-cloud/phala/kms/kmsapi"
	"github.com/confidential-cloud/phala/ledger"
)

// What a SEV-SNP guest runs can have any data reported, and no register tells when. So
// keys are released once per launch, which a guest asks for before it starts anything
// (docs/design/006-sev-snp.md).

// redeems is what a release redeems for good beside its nonce.
func (v *verified) redeems() (out []keyring.Once) {
	if v.noNonce {
		out = append(out, usedKey(v.client))
	}
	if id := v.v.Claims().LaunchID(); id != "" {
		out = append(out, keyring.Once{ID: id, By: v.client})
	}
	return out
}

// checkLaunch refuses a launch that keys were released to, and one that the guest has
// started without asking for any: its containers were there before the request.
func (m *Member) checkLaunch(v *verified) error {
	c := v.v.Claims()
	if c.SNP == nil {
		return nil
	}
	var p struct {
		Name string `json:"name"`
	}
	if err := json.Unmarshal(c.KeyProvider, &p); err != nil || p.Name != appcompose.ProviderKMS {
		return v.refuse(cvm.Denied, kmsapi.ReasonPhase, "this launch asks no KMS for keys: whatever it runs may have made the evidence",
			"launch the machine with key provider kms in its MrConfig document")
	}
	for _, o := range v.redeems() {
		if o.By != "" && m.machine.Redeemed(o) {
			return v.refuse(cvm.Denied, kmsapi.ReasonLaunchRedeemed, "keys were released to this launch of the machine before, to another TLS key", "start the machine again")
		}
	}
	return nil
}

// launchNote is what an allow's leaf says of evidence without phases.
func launchNote(c claim.Claims) json.RawMessage {
	if c.SNP == nil {
		return nil
	}
	b, _ := json.Marshal(ledger.LaunchNote{Phase: string(c.Phase), Launch: c.LaunchID()}) // plain data: it always encodes
	return b
}
