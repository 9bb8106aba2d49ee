// Package collateral holds the vendor's endorsements that a TDX verification
// needs, and parses them. A Set is carried, never trusted: its signatures are
// checked at use, by attest.Verify. Values are read only from the exact bytes that
// the vendor signed.
//
// Formats: Intel PCS API v4 (TCB info version 3, enclave identity version 2).
package collateral

// Set is the collateral for one platform, exact bytes as the vendor gave them. A
// Bundle carries its JSON form (byte fields in base64).
type Set struct {
	TCBInfo               []byte `json:"tcb_info"`                 // response body {"tcbInfo":{...},"signature":"hex"}
	TCBInfoIssuerChain    []byte `json:"tcb_info_issuer_chain"`    // PEM: signer, root
	QEIdentity            []byte `json:"qe_identity"`              // response body {"enclaveIdentity":{...},"signature":"hex"}
	QEIdentityIssuerChain []byte `json:"qe_identity_issuer_chain"` // PEM: signer, root
	RootCRL               []byte `json:"root_ca_crl"`              // DER
	PCKCRL                []byte `json:"pck_crl"`                  // DER
	PCKCRLIssuerChain     []byte `json:"pck_crl_issuer_chain"`     // PEM; not used: the quote's own chain names the issuer
	AMD                   *AMD   `json:"amd,omitempty"`            // of SEV-SNP evidence; TDX evidence has none
	AWS                   *AWS   `json:"aws,omitempty"`            // of AWS Nitro evidence
}

// AMD is what AMD's key distribution service states about one chip.
type AMD struct {
	Leaf  []byte `json:"vcek"`       // VCEK or VLEK certificate, DER
	Chain []byte `json:"cert_chain"` // PEM: ASK or ASVK, then ARK
	CRL   []byte `json:"crl"`        // DER, signed by the ARK
}

// AWS is what AWS states about the certificates of its documents.
type AWS struct {
	CRLs [][]byte `json:"crls"` // DER: one current list of each issuer
}

// Limits of foreign collateral, in bytes.
const (
	MaxBody  = 1 << 20
	MaxChain = 64 << 10
)
