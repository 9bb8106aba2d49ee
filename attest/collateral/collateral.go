// Package collateral holds the vendor's endorsements that a TDX verification
// needs. A Set is carried, never trusted: everything in it is parsed and its
// signatures checked at use, by attest.Verify.
package collateral

// Set is the collateral for one FMSPC: exact bytes as the vendor signed them. Its
// JSON form is the offline bundle.
type Set struct {
	TCBInfo               []byte `json:"tcb_info"`                 // response body {"tcbInfo":{...},"signature":"hex"}
	TCBInfoIssuerChain    []byte `json:"tcb_info_issuer_chain"`    // PEM, signer then root
	QEIdentity            []byte `json:"qe_identity"`              // response body {"enclaveIdentity":{...},"signature":"hex"}
	QEIdentityIssuerChain []byte `json:"qe_identity_issuer_chain"` // PEM
	RootCRL               []byte `json:"root_ca_crl"`              // DER
	PCKCRL                []byte `json:"pck_crl"`                  // DER
	PCKCRLIssuerChain     []byte `json:"pck_crl_issuer_chain"`     // PEM
}
