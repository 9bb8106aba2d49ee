package guestagent

import (
	"context"
	"fmt"

	"github.com/confidential-cloud/phala/attest"
	"github.com/confidential-cloud/phala/attest/collateral"
	"github.com/confidential-cloud/phala/attest/fetch"
	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/guest-agent/guestapi"
)

// chipChain asks the key distribution service that the host names for the certificates of
// this machine's chip; nil where it names none. What comes is a hint like the host's own:
// whoever reads the evidence judges it.
func chipChain(sys guestapi.SysConfig) (func(context.Context, attest.Evidence) ([][]byte, error), error) {
	url, _ := sys.CollateralURLs["amd_kds"].(string)
	if url == "" {
		return nil, nil
	}
	c, err := fetch.New(fetch.Config{KDS: []string{url}})
	if err != nil {
		return nil, fmt.Errorf("collateral_urls.amd_kds: %w", err)
	}
	return func(ctx context.Context, ev attest.Evidence) ([][]byte, error) {
		set, err := c.For(ctx, ev)
		if err != nil {
			return nil, err
		}
		if set.AMD == nil {
			return nil, cvm.Errorf(cvm.Unavailable, "%s gave nothing for this chip", url)
		}
		issuers, err := collateral.ParseChain(set.AMD.Chain, 2)
		if err != nil {
			return nil, err
		}
		return [][]byte{set.AMD.Leaf, issuers[0].Raw, issuers[1].Raw}, nil
	}, nil
}
