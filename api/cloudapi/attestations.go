package cloudapi

// QuoteVerification is the answer of POST /attestations/verify and of
// GET /attestations/view/{checksum}. Success: the vendor's rules are satisfied. It
// does not say which app or image made the quote, or when.
type QuoteVerification struct {
	ID              string           `json:"id"`
	Success         bool             `json:"success"`
	ProofOfCloud    bool             `json:"proof_of_cloud" doc:"the quote is of a machine of this cloud"`
	Quote           *QuoteView       `json:"quote"`
	Checksum        *string          `json:"checksum" doc:"hex sha256 of the quote"`
	CanDownload     *bool            `json:"can_download"`
	UploadedAt      *string          `json:"uploaded_at"`
	VerifiedAt      *string          `json:"verified_at"`
	QuoteCollateral *QuoteCollateral `json:"quote_collateral"`
	NodeProvider    *NodeProvider    `json:"node_provider"`

	TCBStatus string `json:"tcb_status,omitempty"` // ours
	Summary   string `json:"summary,omitempty"`    // ours: the verdict in a sentence
}

// QuoteView is what a TDX quote says; all values in hex.
type QuoteView struct {
	Header   QuoteHeader `json:"header"`
	CertData *string     `json:"cert_data" doc:"PEM"`
	Body     QuoteBody   `json:"body"`
	Verified *bool       `json:"verified"`
}

// QuoteHeader is a quote's header. AKType 2 is ECDSA P-256, TEEType 129 is TDX.
type QuoteHeader struct {
	Version  int    `json:"version"`
	AKType   int    `json:"ak_type"`
	TEEType  int    `json:"tee_type"`
	QEVendor string `json:"qe_vendor"`
	UserData string `json:"user_data"`
}

// QuoteBody is the TD's report.
type QuoteBody struct {
	TEETCBSVN      string `json:"tee_tcb_svn"`
	MRSeam         string `json:"mrseam"`
	MRSignerSeam   string `json:"mrsignerseam"`
	SeamAttributes string `json:"seamattributes"`
	TDAttributes   string `json:"tdattributes"`
	XFAM           string `json:"xfam"`
	MRTD           string `json:"mrtd"`
	MRConfig       string `json:"mrconfig"`
	MROwner        string `json:"mrowner"`
	MROwnerConfig  string `json:"mrownerconfig"`
	RTMR0          string `json:"rtmr0"`
	RTMR1          string `json:"rtmr1"`
	RTMR2          string `json:"rtmr2"`
	RTMR3          string `json:"rtmr3"`
	ReportData     string `json:"reportdata"`
}

// QuoteCollateral is what the vendor says of a quote's platform: signed JSON as the
// vendor wrote it, chains in PEM, lists and signatures in hex.
type QuoteCollateral struct {
	PCKCRLIssuerChain     string  `json:"pck_crl_issuer_chain"`
	RootCACRL             *string `json:"root_ca_crl"`
	PCKCRL                string  `json:"pck_crl"`
	TCBInfoIssuerChain    string  `json:"tcb_info_issuer_chain"`
	TCBInfo               string  `json:"tcb_info"`
	TCBInfoSignature      string  `json:"tcb_info_signature"`
	QEIdentityIssuerChain string  `json:"qe_identity_issuer_chain"`
	QEIdentity            string  `json:"qe_identity"`
	QEIdentitySignature   string  `json:"qe_identity_signature"`
}

// NodeProvider says whose machine made a quote.
type NodeProvider struct {
	ProofOfCloud bool    `json:"proof_of_cloud"`
	Provider     *string `json:"provider" doc:"the node of this cloud"`
	PPID         string  `json:"ppid"`
}

// RecentQuote is one of GET /attestations/recent. Verified is 0 or 1.
type RecentQuote struct {
	Checksum  string `json:"checksum"`
	Verified  int    `json:"verified"`
	CreatedAt string `json:"created_at"`
}

// AppAttestations is GET /apps/{app_id}/attestations, for anybody: what the app's
// CVMs with public_tcbinfo say of themselves. Nothing in it is verified here.
type AppAttestations struct {
	AppID                 string                `json:"app_id"`
	ContractAddress       string                `json:"contract_address"`
	KMSInfo               AttestationKMS        `json:"kms_info"`
	Instances             []InstanceAttestation `json:"instances"`
	KMSGuestAgentInfo     *struct{}             `json:"kms_guest_agent_info"`
	GatewayGuestAgentInfo *struct{}             `json:"gateway_guest_agent_info"`
	QEMUVersion           *string               `json:"qemu_version"`
}

// AttestationKMS describes the KMS there. ChainID is null: its clients disagree on
// its type.
type AttestationKMS struct {
	ContractAddress string  `json:"contract_address"`
	ChainID         *string `json:"chain_id"`
	Version         string  `json:"version"`
	URL             string  `json:"url"`
	GatewayAppID    *string `json:"gateway_app_id"`
	GatewayAppURL   string  `json:"gateway_app_url"`
	KMSType         string  `json:"kms_type"`

	Chain uint64 `json:"chain,omitempty"` // ours: the chain's id
}

// InstanceAttestation is one running CVM. Name is there when it is listed publicly.
type InstanceAttestation struct {
	Name            string        `json:"name,omitempty"`
	Status          string        `json:"status,omitempty"`
	PPID            string        `json:"ppid,omitempty"`
	DeviceID        string        `json:"device_id,omitempty"`
	VMUUID          *string       `json:"vm_uuid"`
	InstanceID      *string       `json:"instance_id"`
	ImageVersion    *string       `json:"image_version"`
	Quote           *string       `json:"quote" doc:"hex"`
	ComposeFile     *string       `json:"compose_file"`
	Error           *string       `json:"error"`
	TCBInfo         *TCBInfo      `json:"tcb_info"`
	AppCertificates []Certificate `json:"app_certificates"`

	Evidence  any  `json:"evidence,omitempty"`  // ours, with a nonce: guestapi.Evidence
	Simulated bool `json:"simulated,omitempty"` // ours
}

// TCBEvaluation is GET /apps/{app_id}/attestations/tcb-evaluation.
type TCBEvaluation struct {
	AppID     string                  `json:"app_id"`
	Update    string                  `json:"update"`
	Instances []InstanceTCBEvaluation `json:"instances"`
}

// InstanceTCBEvaluation is one CVM by the vendor's earliest collateral.
type InstanceTCBEvaluation struct {
	VMUUID           *string `json:"vm_uuid"`
	Name             *string `json:"name"`
	InstanceID       *string `json:"instance_id"`
	Status           *string `json:"status"`
	ImageVersion     *string `json:"image_version"`
	PPID             string  `json:"ppid,omitempty"`
	DeviceID         *string `json:"device_id"`
	EvaluationUpdate string  `json:"evaluation_update"`
	EvaluationOK     *bool   `json:"evaluation_ok"`
	EvaluationStatus *string `json:"evaluation_status"`
	Error            *string `json:"error"`
}
