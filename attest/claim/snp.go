package claim

import (
	"crypto/sha256"
	"encoding/hex"
)

// LaunchID names the launch of a SEV-SNP VM by its chip and its REPORT_ID, which the
// firmware draws; "" for evidence that shows phases of a boot instead.
func (c Claims) LaunchID() string {
	if c.SNP == nil {
		return ""
	}
	h := sha256.New()
	h.Write([]byte("phala-snp-launch:v1:"))
	h.Write(c.DeviceID[:])
	h.Write(c.SNP.ReportID[:])
	return hex.EncodeToString(h.Sum(nil))
}

// Names of the checks that only a verification of SEV-SNP evidence makes. The
// others (QuoteParse, RootAdmitted, QuoteSignature, CollateralParse, CRLFresh,
// CRLRevoked, TCBMatch, TCBStatus, ReportData, PhaseCheck, ImageMeasurement) mean the
// same for both TEEs.
const (
	SNPAdmitted   = "snp.admitted"
	SNPProduct    = "snp.product"
	SNPSigner     = "snp.signer"
	SNPChain      = "snp.chain"
	SNPChip       = "snp.chip"
	SNPTCB        = "snp.tcb"
	SNPDebug      = "snp.debug"
	SNPGuest      = "snp.guest-policy"
	SNPVMPL       = "snp.vmpl"
	SNPIDBlock    = "snp.id-block"
	SNPPlatform   = "snp.platform-info"
	SNPFirmware   = "snp.firmware"
	SNPMitigation = "snp.mitigation"
	SNPHostData   = "snp.host-data"
	SNPIdentity   = "snp.identity"
)

// allSNP lists every check of a SEV-SNP verification in order.
func allSNP() []About {
	return []About{
		{Name: SNPAdmitted, Title: "The policy admits SEV-SNP", Fix: "name SEV-SNP in the policy, with the products, the minimum TCB and the phase it admits"},
		{Name: QuoteParse, Title: "The report is well formed", Fix: "the evidence is damaged or of another kind of TEE: fetch it again"},
		{Name: SNPProduct, Title: "The processor is a product this policy admits", Fix: "the report, its certificate and the policy must name the same AMD product (Milan, Genoa, Turin)"},
		{Name: SNPSigner, Title: "The report is signed by a kind of key this policy admits", Fix: "the host must sign with the chip's VCEK, or with a VLEK of an admitted cloud provider"},
		{Name: CollateralParse, Title: "The vendor's certificates are readable", Fix: "check the key distribution service (KDS) URL"},
		{Name: SNPChain, Title: "The chip's certificate chains to a root", Fix: "the certificates are damaged, expired or not those of this product: fetch them again"},
		{Name: RootAdmitted, Title: "The root is one this policy trusts", Fix: "compare the trust roots of the policy (or trust profile) with the machine's; a simulated TEE must be admitted by name"},
		{Name: QuoteSignature, Title: "The chip's key signed this report", Fix: "the report was altered after it was made, or the certificate is of another chip or TCB"},
		{Name: CRLFresh, Title: "The revocation list is genuine and current", Fix: "refresh the revocation list, and check this machine's clock"},
		{Name: CRLRevoked, Title: "No certificate in the chain is revoked", Fix: "the vendor revoked this machine: do not use it"},
		{Name: CollateralFloor, Title: "The revocation list has not gone back", Fix: "ask another key distribution service: this one answers with an older list than one already seen"},
		{Name: SNPChip, Title: "The certificate is this chip's", Fix: "the certificate is of another chip, or the host hides its chip id (MASK_CHIP_ID): fetch the right one, or admit masked chips"},
		{Name: SNPTCB, Title: "The certificate is for the TCB that the report states", Fix: "fetch the certificate for the reported TCB; a committed TCB above the current one means broken firmware"},
		{Name: TCBMatch, Title: "The policy rates this product's patch level", Fix: "give the policy a minimum TCB for this product"},
		{Name: TCBStatus, Title: "The patch level is admitted", Fix: "update the host's firmware and microcode, or admit this status in the policy"},
		{Name: SNPDebug, Title: "The VM cannot be debugged by the host", Fix: "start the VM without the debug bit in its guest policy"},
		{Name: SNPGuest, Title: "The VM's guest policy is safe", Fix: "start the VM without a migration agent, with the ABI, SMT and socket rules that the policy asks for"},
		{Name: SNPVMPL, Title: "The report was asked for at the right privilege level", Fix: "the report must come from VMPL 0, or from the level that the policy names"},
		{Name: SNPIDBlock, Title: "The VM's ID block is an expected one", Fix: "start the VM without an ID block, or name the digests of its ID and author keys in the policy"},
		{Name: SNPPlatform, Title: "The platform's settings are admitted", Fix: "compare PLATFORM_INFO (SMT, TSME, ciphertext hiding, alias check) with the policy"},
		{Name: SNPFirmware, Title: "The platform's firmware is new enough", Fix: "update the SEV firmware of the host"},
		{Name: SNPMitigation, Title: "The platform's mitigations are on", Fix: "update the host's firmware so that the mitigation vectors hold what the policy asks for"},
		{Name: ReportData, Title: "The evidence answers this request", Fix: "the report was made for another key, nonce or connection: ask for a fresh one"},
		{Name: SNPHostData, Title: "The launch was bound to this configuration", Fix: "the MrConfig document is not the one the VM was launched with"},
		{Name: SNPIdentity, Title: "The configuration names the app", Fix: "the MrConfig document must be canonical, version 3, with app id and compose hash"},
		{Name: PhaseCheck, Title: "The boot has come as far as it must", Fix: "SEV-SNP cannot prove a phase: only a relying party that names SEV-SNP takes it (attestation.snp of a KMS, tee.snp of a trust profile, phase \"unproven\" of a policy)"},
		{Name: ImageMeasurement, Title: "The OS image is the one that was measured", Fix: "compare image and VM shape (vCPUs, CPU type, guest features) with what the host was told to start"},
	}
}
