//go:build ignore

// Writes the Go bindings of the artifacts. Run by build.sh:
//
//	go run generate.go ARTIFACTDIR OUTFILE
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/ethereum/go-ethereum/accounts/abi/abigen"
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: go run generate.go ARTIFACTDIR OUTFILE")
		os.Exit(2)
	}
	if err := generate(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func generate(dir, out string) error {
	names := []string{"DstackApp", "DstackKms", "ERC1967Proxy", "Multicall3"}
	var abis, bins []string
	for _, n := range names {
		b, err := os.ReadFile(filepath.Join(dir, n+".json"))
		if err != nil {
			return err
		}
		var a struct {
			ABI json.RawMessage `json:"abi"`
			Bin string          `json:"bin"`
		}
		if err := json.Unmarshal(b, &a); err != nil {
			return fmt.Errorf("%s: %w", n, err)
		}
		abis, bins = append(abis, string(a.ABI)), append(bins, a.Bin)
	}
	src, err := abigen.BindV2(names, abis, bins, "contracts", map[string]string{}, map[string]string{})
	if err != nil {
		return err
	}
	return os.WriteFile(out, []byte(distinct(src)), 0o644)
}

// distinct renames the result struct that two contracts share by name: abigen
// would declare it twice.
func distinct(src string) string {
	const kms, next, name = "// DstackKmsMetaData contains", "// ERC1967ProxyMetaData contains", "IsAppAllowedOutput"
	i, j := strings.Index(src, kms), strings.Index(src, next)
	if i < 0 || j < i {
		panic("generate: the bindings are not laid out as expected")
	}
	return src[:i] + strings.ReplaceAll(src[i:j], name, "Kms"+name) + src[j:]
}
