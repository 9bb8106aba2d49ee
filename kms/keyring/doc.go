// Package keyring is the KMS's replicated state machine and the keeper of its
// secrets. Machine is pure: Apply(index, command) changes it the same way on every
// member, with time, identity and randomness from the command. It holds root
// secrets only as ciphertext to members (T3). Vault holds them in the clear, in
// memory, and gives an app's keys for a Recorded alone, which only a Machine
// makes, from a decision it has applied (T1).
package keyring
