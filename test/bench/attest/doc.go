// Package attest measures the verifier beside other verifiers and beside the
// signatures it cannot do without. It holds tests only: `make bench` writes their
// table into docs/performance.md.
package attest
