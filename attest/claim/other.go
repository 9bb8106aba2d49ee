package claim

// Variants of evidence that is not a CPU's own. The Nitro names are the reference's.
const (
	VariantNitroEnclave = "dstack-nitro-enclave"
	VariantNitroTPM     = "dstack-aws-nitro-tpm"
	VariantTPM          = "tpm"
	VariantGPU          = "nvidia-gpu"
	VariantGPUToken     = "nvidia-nras"
)

// Names of the checks on other evidence. Where a check of TDX says the same thing
// (root.admitted, crl.revoked, phase, ...) its name is used.
const (
	DocumentParse     = "document.parse"
	DocumentChain     = "document.chain"
	DocumentSignature = "document.signature"
	DocumentFresh     = "document.fresh"
	DocumentNonce     = "document.nonce"
	DocumentBinding   = "document.binding"
	DocumentDebug     = "document.debug"
	DocumentImage     = "document.image"

	TPMQuoteParse     = "tpm.parse"
	TPMKeyChain       = "tpm.key-chain"
	TPMQuoteSignature = "tpm.signature"
	TPMQuoteNonce     = "tpm.nonce"
	TPMPCRDigest      = "tpm.pcr-digest"
	TPMPCRs           = "tpm.pcrs"
	TPMMachine        = "tpm.machine"
	TPMBootLog        = "tpm.boot-log"
	TPMKernel         = "tpm.kernel"

	GPUReportParse     = "gpu.parse"
	GPUChain           = "gpu.chain"
	GPUFirmware        = "gpu.fwid"
	GPURevoked         = "gpu.ocsp"
	GPUReportSignature = "gpu.signature"
	GPUNonce           = "gpu.nonce"
	GPUDriverRIM       = "gpu.driver-rim"
	GPUVBIOSRIM        = "gpu.vbios-rim"
	GPUMeasurements    = "gpu.measurements"

	PartExpected = "part.expected" // composite evidence: these two come before each part's own
	PartBinding  = "part.binding"

	TokenParse     = "token.parse"
	TokenSignature = "token.signature"
	TokenIssuer    = "token.issuer"
	TokenFresh     = "token.fresh"
	TokenNonce     = "token.nonce"
	TokenDevices   = "token.devices"
	TokenDebug     = "token.debug"
)

// other lists the checks of evidence that is not a CPU's own; nil for a variant
// that is not here.
func other(variant string) []About {
	switch variant {
	case VariantNitroEnclave:
		return nitro(
			About{Name: DocumentDebug, Title: "The enclave cannot be debugged by its parent", Fix: "run the enclave without --debug-mode: a debug enclave has zeros for PCR0"},
			About{Name: PhaseCheck, Title: "The boot has come as far as it must", Fix: "an enclave cannot prove a phase: only a policy that admits \"unproven\" accepts it"})
	case VariantNitroTPM:
		return nitro(launchLog()...)
	case VariantTPM:
		return tpm()
	case VariantGPU:
		return gpu()
	case VariantGPUToken:
		return gpuToken()
	}
	return nil
}

func nitro(more ...About) []About {
	return append([]About{
		{Name: DocumentParse, Title: "The attestation document is well formed", Fix: "the document is damaged or of another kind: take the bytes of the COSE_Sign1 alone"},
		{Name: DocumentChain, Title: "The document's certificate chains to a root", Fix: "the certificates are damaged or expired: leaves live for hours, so fetch a fresh document"},
		{Name: RootAdmitted, Title: "The root is one this policy trusts", Fix: "compare the policy's roots with AWS's published root G1"},
		{Name: CRLRevoked, Title: "No certificate in the chain is revoked", Fix: "fetch the revocation lists that the certificates name, or say in the policy that none are asked for (AWS's own advice)"},
		{Name: DocumentSignature, Title: "The hypervisor signed this document", Fix: "the document was altered after it was made"},
		{Name: DocumentFresh, Title: "The document is young enough", Fix: "fetch a fresh document, and check this machine's clock"},
		{Name: DocumentNonce, Title: "The document answers this request", Fix: "the document was made for another nonce: ask for a fresh one"},
		{Name: DocumentBinding, Title: "The document carries the key and data that this request expects", Fix: "the document was made for another key or user data"},
		{Name: DocumentImage, Title: "The image is one this policy admits", Fix: "compare the image's PCRs with those printed when it was built"},
	}, more...)
}

func launchLog() []About {
	return []About{
		{Name: EventlogReplay, Title: "The event log replays to PCR14", Fix: "the log was altered, or belongs to another boot"},
		{Name: EventlogIdentity, Title: "The app's identity was measured once, in order", Fix: "the guest image does not measure as it must, or something extended the register before it was ready"},
		{Name: PhaseCheck, Title: "The boot has come as far as it must", Fix: "keys are released only to a boot that has started nothing; other proofs need a VM that is ready"},
	}
}

func tpm() []About {
	return append([]About{
		{Name: TPMQuoteParse, Title: "The TPM's quote is well formed", Fix: "the quote is damaged or another TPM structure: fetch it again"},
		{Name: TPMKeyChain, Title: "The TPM's attestation key chains to a root", Fix: "the certificates are damaged, expired or not of an attestation key"},
		{Name: RootAdmitted, Title: "The root is one this policy trusts", Fix: "compare the policy's roots with the cloud's published TPM root"},
		{Name: CRLRevoked, Title: "No certificate in the chain is revoked", Fix: "fetch the revocation lists that the certificates name, or say in the policy that none are asked for"},
		{Name: TPMQuoteSignature, Title: "The attestation key signed this quote", Fix: "the quote was altered after it was made"},
		{Name: TPMQuoteNonce, Title: "The quote answers this request", Fix: "the quote was made for another nonce or another CPU quote: ask for a fresh one"},
		{Name: TPMPCRDigest, Title: "The PCR values are those quoted", Fix: "the values beside the quote were altered, or belong to another bank"},
		{Name: TPMPCRs, Title: "The boot is one this policy admits", Fix: "compare firmware and image with what the policy's PCRs were computed from"},
		{Name: TPMMachine, Title: "The machine is one this policy admits", Fix: "compare project, zone and instance in the attestation key's certificate with the policy"},
	}, optional(append([]About{
		{Name: TPMBootLog, Title: "The firmware's log matches the PCRs", Fix: "the log was altered, or belongs to another boot"},
		{Name: TPMKernel, Title: "The kernel is one this policy admits", Fix: "compare the image with the policy's list of kernels"},
	}, launchLog()...))...)
}

func optional(list []About) []About {
	for i := range list {
		list[i].Optional = true
	}
	return list
}

func gpu() []About {
	return []About{
		{Name: GPUReportParse, Title: "The GPU's report is well formed", Fix: "the report is damaged: take SPDM request and response as the driver gives them"},
		{Name: GPUChain, Title: "The GPU's certificate chains to a root", Fix: "the certificates are damaged, expired or not those of a GPU"},
		{Name: RootAdmitted, Title: "The root is one this policy trusts", Fix: "name NVIDIA's Device Identity CA in the policy's roots"},
		{Name: GPUFirmware, Title: "The certificate is for the firmware that reports", Fix: "the certificate belongs to another GPU or another firmware"},
		{Name: GPURevoked, Title: "NVIDIA says that no certificate is revoked", Fix: "fetch fresh OCSP responses, and check this machine's clock"},
		{Name: GPUReportSignature, Title: "The GPU signed this report", Fix: "the report was altered, or the certificate is another GPU's"},
		{Name: GPUNonce, Title: "The report answers this request", Fix: "the report was made for another nonce or another CPU evidence: ask for a fresh one"},
		{Name: GPUDriverRIM, Title: "NVIDIA signed reference values for this driver", Fix: "fetch the RIM of exactly the driver version in the report"},
		{Name: GPUVBIOSRIM, Title: "NVIDIA signed reference values for this VBIOS", Fix: "fetch the RIM of exactly the VBIOS version in the report"},
		{Name: GPUMeasurements, Title: "The GPU runs what NVIDIA measured", Fix: "the GPU's firmware or mode (debug, devtools) differs from the reference: reset it, or update driver and VBIOS together"},
	}
}

func gpuToken() []About {
	return []About{
		{Name: TokenParse, Title: "The token is well formed", Fix: "take the verifier service's answer as it came"},
		{Name: TokenSignature, Title: "The verifier service signed the token", Fix: "refresh the service's key set; a token with alg none or a symmetric key is a forgery"},
		{Name: TokenIssuer, Title: "The issuer is one this policy trusts", Fix: "name the verifier service in the policy"},
		{Name: TokenFresh, Title: "The token is in its period of validity", Fix: "ask for a fresh token, and check this machine's clock"},
		{Name: TokenNonce, Title: "The token answers this request", Fix: "the token was made for another nonce or another CPU evidence: ask for a fresh one"},
		{Name: TokenDevices, Title: "Every GPU passed, and is of an admitted model", Fix: "the service found a GPU that it does not vouch for: see its claims"},
		{Name: TokenDebug, Title: "Debugging is off and the boot was secure", Fix: "switch the GPU out of debug and devtools mode"},
	}
}
