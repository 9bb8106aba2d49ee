package kms

import "errors"

// File is the TOML file of phala-kms: a [kms] and a [governance] table. Whoever
// starts members as processes writes it with config.Save.
type File struct {
	KMS        Config     `toml:"kms"`
	Governance Governance `toml:"governance"`
}

// Governance names the authority: a chain (rpc_urls, chain_id, kms_contract) or an
// allow-list file (static), not both.
type Governance struct {
	RPCURLs     []string `toml:"rpc_urls,omitempty"`
	ChainID     uint64   `toml:"chain_id,omitempty"`
	KMSContract string   `toml:"kms_contract,omitempty"` // 0x-address of DstackKms
	Final       string   `toml:"final,omitempty"`        // "finalized" (default), "safe" or "head-N"
	HeadSlack   uint64   `toml:"head_slack,omitempty"`   // blocks; 0: the reader's default
	Static      string   `toml:"static,omitempty"`       // path of an allow-list
}

// DefaultFile is the file before it is read: it admits nothing.
func DefaultFile() File { return File{KMS: Default()} }

// Validate returns all problems.
func (f *File) Validate() error {
	var err error
	if (f.Governance.Static == "") == (len(f.Governance.RPCURLs) == 0) {
		err = errors.New("governance: set rpc_urls (with chain_id and kms_contract) or static, and not both")
	}
	return errors.Join(err, f.KMS.Validate())
}
