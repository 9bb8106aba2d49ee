package main

import (
	"context"
	"errors"
	"time"

	"github.com/confidential-cloud/phala/governance"
	"github.com/confidential-cloud/phala/governance/ethereum"
	"github.com/confidential-cloud/phala/governance/static"
	"github.com/confidential-cloud/phala/kms"
)

// fileConfig is the TOML file: [kms] and [governance].
type fileConfig struct {
	KMS        kms.Config       `toml:"kms"`
	Governance governanceConfig `toml:"governance"`
}

// governanceConfig names the authority: a chain (rpc_urls, chain_id,
// kms_contract) or an allow-list file (static), not both.
type governanceConfig struct {
	RPCURLs     []string `toml:"rpc_urls"`
	ChainID     uint64   `toml:"chain_id"`
	KMSContract string   `toml:"kms_contract"`
	Final       string   `toml:"final"`
	HeadSlack   uint64   `toml:"head_slack"`
	Static      string   `toml:"static"`
}

func defaults() fileConfig { return fileConfig{KMS: kms.Default()} }

// Validate returns all problems.
func (c *fileConfig) Validate() error {
	var err error
	if (c.Governance.Static == "") == (len(c.Governance.RPCURLs) == 0) {
		err = errors.New("governance: set rpc_urls (with chain_id and kms_contract) or static, and not both")
	}
	return errors.Join(err, c.KMS.Validate())
}

func (g governanceConfig) open(ctx context.Context, k kms.Config) (governance.Authority, error) {
	if g.Static != "" {
		return static.New(static.Config{Path: g.Static})
	}
	return ethereum.New(ctx, ethereum.Config{
		RPCURLs: g.RPCURLs, ChainID: g.ChainID, KMSContract: g.KMSContract, Final: g.Final, HeadSlack: g.HeadSlack,
		MaxStaleness: time.Duration(k.MaxStaleness), Log: k.Log,
	})
}
