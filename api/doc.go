// Package api is the cloud's control plane: the public REST API under /api/v1.
//
// Make a Server with New, run it with Run. The first admin key comes from
// NewAdminKey (or admin_key_file in the config). The API is trusted with nothing
// that matters: it sees ciphertext of environments, relays evidence that others
// check, and asks a VMM to start what the KMS then allows or refuses. A caller's
// request becomes rows in one transaction (store.Change) and a job (package jobs).
package api
