package main

import (
	"context"

	"github.com/confidential-cloud/phala/governance"
	"github.com/confidential-cloud/phala/governance/ethereum"
	"github.com/confidential-cloud/phala/governance/static"
	"github.com/confidential-cloud/phala/kms"
)

func authority(ctx context.Context, f kms.File) (governance.Authority, error) {
	g := f.Governance
	if g.Static != "" {
		return static.New(static.Config{Path: g.Static})
	}
	return ethereum.New(ctx, ethereum.Config{
		RPCURLs: g.RPCURLs, ChainID: g.ChainID, KMSContract: g.KMSContract, Final: g.Final, HeadSlack: g.HeadSlack,
		MaxStaleness: f.KMS.MaxStaleness, Log: f.KMS.Log,
	})
}
