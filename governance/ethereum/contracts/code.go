package contracts

import (
	_ "embed"
	"encoding/json"
	"fmt"

	"github.com/ethereum/go-ethereum/common"
)

//go:embed artifacts/Multicall3.json
var multicall3 []byte

// Multicall3Code is the code that lies at an address once Multicall3 is deployed:
// for genesis blocks, which run no constructor.
func Multicall3Code() ([]byte, error) {
	var a struct {
		DeployedBin string `json:"deployedBin"`
	}
	if err := json.Unmarshal(multicall3, &a); err != nil {
		return nil, fmt.Errorf("contracts: Multicall3 artifact: %w", err)
	}
	return common.FromHex(a.DeployedBin), nil
}
