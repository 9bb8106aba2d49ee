// Package differential holds our TDX verifier against three that are not ours:
// go-tdx-guest and the two dcap-qvl npm builds, over structured mutations of the
// simulated TEE's evidence and collateral. Every disagreement must belong to a
// class that docs/spec/differential.md explains; ours is never the laxer one.
//
//	go test ./test/differential          an everyday sample, seconds
//	go test ./test/differential -long    millions for go-tdx-guest, tens of thousands for npm
package differential
