// Package phala is the map of the house; it holds no code.
//
// A person brings a docker-compose.yml; it runs in a confidential VM, its keys
// come from a KMS that releases them only to verified code that governance
// allows, its TLS ends inside an enclave, and anyone can check all of it.
//
//	floor 0  words     cvm appcompose
//	                   ids, digests, coded errors; the measured document
//	floor 1  proofs    keys attest (claim seen tdx sevsnp eventlog measure collateral) ratls ledger governance
//	                   pure: time is an argument, nothing is fetched. Import these to verify from your program.
//	floor 2  adapters  attest/fetch attest/simtee governance/ethereum governance/static internal/* verify templates
//	                   the I/O; no knowledge of services
//	floor 3  services  kms gateway vmm guest-agent api
//	                   import floors 0-2 and each other's *api packages, nothing else of each other
//	floor 4  doors     cli devcloud cmd/*
//	                   imported by nobody
//
// To verify a running app, call verify.Run. To verify one piece of evidence, call
// attest.Verify with a Policy: the zero Policy accepts nothing. To read evidence from
// a file in any form, and have the verdict in words, call check.Parse and check.Run. To write a client
// of the KMS, VMM, gateway, guest or cloud API, import its *api package.
//
// The import law is a test: test/house. The trust decisions and formats are in
// docs/; start with docs/architecture.md.
package phala
