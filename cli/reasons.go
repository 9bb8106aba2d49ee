package cli

import (
	"github.com/confidential-cloud/phala/governance/ethereum"
	"github.com/confidential-cloud/phala/kms/kmsapi"
)

// reasonText says in a sentence what a machine word means. Words that already
// speak for themselves in the message have none.
func reasonText(reason string) string {
	switch reason {
	case kmsapi.ReasonEvidence:
		return "the KMS checked the evidence of the VM and rejected it"
	case kmsapi.ReasonRoot:
		return "the evidence is signed by a root that the KMS does not admit"
	case kmsapi.ReasonPhase:
		return "the evidence was not made at the moment of boot at which keys are released"
	case kmsapi.ReasonBinding:
		return "the evidence belongs to another connection: somebody may be relaying it"
	case kmsapi.ReasonNonceUsed:
		return "the same challenge was answered twice: a replay"
	case kmsapi.ReasonNonceExpired:
		return "the VM took longer than 60 s to answer the KMS's challenge"
	case kmsapi.ReasonGovernance:
		return "the rules on chain do not allow this app, image or machine"
	case kmsapi.ReasonChainStale:
		return "the KMS has not seen a recent block, and decides nothing without one"
	case kmsapi.ReasonNoQuorum:
		return "too few KMS members answer to record a decision, so no key is released"
	case kmsapi.ReasonComposeMismatch:
		return "the app-compose that was sent is not the one that was measured"
	case kmsapi.ReasonEnvSwapped:
		return "the encrypted environment is not signed by one of the app's env_signers"
	case kmsapi.ReasonEnvRolledBack:
		return "the environment is older than one the KMS has already seen"
	case kmsapi.ReasonLeaseUnknown:
		return "the KMS does not know the VM's lease"
	case kmsapi.ReasonRateLimited:
		return "too many requests in a short time"
	case reasonFalseKMS:
		return "whoever answered the VM as its KMS does not hold the KMS key that the app pins; nothing was told to it"
	case reasonNoKMS:
		return "the VM reached no KMS member"
	case ethereum.ReasonUnreachable:
		return "no RPC endpoint of the chain answers"
	case ethereum.ReasonDisagrees:
		return "the RPC endpoints tell different stories about the chain"
	case ethereum.ReasonWentBack:
		return "the chain's height went back"
	case reasonCloudChanged:
		return "the cloud's bytes are not the ones this machine built: deploying them would let it run something else"
	case reasonWrongCloud:
		return "the cloud names a chain or contract that your trust profile does not"
	}
	return ""
}

// Words of the guest agent, which is not linked here.
const (
	reasonFalseKMS = "kms-identity-mismatch"
	reasonNoKMS    = "kms-unreachable"
)

const (
	reasonCloudChanged = "cloud-changed-compose"
	reasonWrongCloud   = "cloud-not-in-trust-profile"
	reasonNoTrust      = "no-trust-profile"
	reasonNotLoggedIn  = "not-logged-in"
	reasonPlainHTTP    = "plain-http"
)
