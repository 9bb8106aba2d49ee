package kms

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"

	"github.com/confidential-cloud/phala/appcompose"
	"github.com/confidential-cloud/phala/attest/claim"
	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/kms/keyring"
	"github.com/confidential-cloud/phala/kms/kmsapi"
)

// What a SEV-SNP guest runs can have any data reported, and no register tells when. So
// keys are released once per launch, which a guest asks for before it starts anything
// (docs/design/006-sev-snp.md).

// launchID names a launch by its REPORT_ID, which the firmware draws; "" for evidence
// that shows phases instead.
func launchID(c claim.Claims) string {
	if c.SNP == nil {
		return ""
	}
	h := sha256.New()
	h.Write([]byte("phala-snp-launch:v1:"))
	h.Write(c.DeviceID[:])
	h.Write(c.SNP.ReportID[:])
	return hex.EncodeToString(h.Sum(nil))
}

// redeems is what a release redeems for good beside its nonce.
func (v *verified) redeems() (out []keyring.Once) {
	if v.noNonce {
		out = append(out, usedKey(v.client))
	}
	if id := launchID(v.v.Claims()); id != "" {
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
	id := launchID(c)
	if id == "" {
		return nil
	}
	b, _ := json.Marshal(map[string]string{"phase": string(c.Phase), "launch": id}) // plain data: it always encodes
	return b
}
