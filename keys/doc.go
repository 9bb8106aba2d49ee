// Package keys derives, signs with and seals the keys of the cloud: the reference's
// derivations from the KMS roots (by epoch: epoch 0 is the reference bit for bit),
// its secp256k1 signature chains, the encrypted environment, and the wrapping of
// root secrets to KMS members.
//
// The KMS holds a Root; a guest derives with KeyPath and signs with SignKey and
// Sign; a client checks with VerifyKeyChain and VerifyEnvKey, and encrypts with
// EncryptEnv. Secret is the only carrier of key bytes: never log what Reveal gives.
package keys
