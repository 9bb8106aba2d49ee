package chain

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/confidential-cloud/phala/cvm"
)

// identity is what a data directory was made with. It cannot change: it is in
// the genesis block.
type identity struct {
	Version    int    `json:"version"`
	ChainID    uint64 `json:"chain_id"`
	Multicall3 bool   `json:"multicall3"`
}

const identityFile = "dev-chain.json"

// checkDir compares the configuration with what the directory was made with.
func checkDir(cfg Config) error {
	path := filepath.Join(cfg.Dir, identityFile)
	want := identity{Version: 1, ChainID: cfg.ChainID, Multicall3: cfg.Multicall3}
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
			return err
		}
		b, err := json.Marshal(want)
		if err != nil {
			return err
		}
		return os.WriteFile(path, append(b, '\n'), 0o600)
	}
	if err != nil {
		return err
	}
	var have identity
	if err := json.Unmarshal(b, &have); err != nil {
		return cvm.Errorf(cvm.Invalid, "chain: %s: %w", path, err)
	}
	if have != want {
		return cvm.Errorf(cvm.Conflict, "chain: %s holds chain %d (multicall3 %t), the configuration asks for chain %d (multicall3 %t)",
			cfg.Dir, have.ChainID, have.Multicall3, want.ChainID, want.Multicall3).
			WithFix("set the configuration back, or use another directory")
	}
	return nil
}
