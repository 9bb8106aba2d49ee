// Package kms is one member of the key management cluster: it verifies evidence,
// asks governance, records the decision in the replicated ledger and only then
// releases keys. Make a Member with New, give it to a process with Run.
//
// A member boots like any app: its TD goes through the guest's measured events
// with the fixed AppCompose, so that one mr_aggregated (ExpectedMR) names all
// members; it and the device id must be allowed by the authority. The first
// member of a cluster has Bootstrap set, the others name Peers to join through.
//
// The order Verify -> Authorize -> Record -> Release is kept by types: keys come
// out of keyring.Vault for a keyring.Recorded alone, which only the applied state
// of the raft log makes.
package kms
