// Package contracts holds the Solidity sources of the governance contracts
// (DstackKms, DstackApp: the reference's ABI, storage order, reason strings and
// events), their compiled artifacts and the Go bindings made of them.
//
// bindings.go and artifacts/ are generated: change src/ and run build.sh. The
// bindings only pack and unpack; package ethereum reads and writes the chain.
package contracts
