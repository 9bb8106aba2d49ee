// Package prpc speaks the reference VMM's RPC (service Vmm, ProxiedGuestApi, and
// GET /logs) over the operations of our own VMM, so that the reference's CLI and
// scripts work. It is a translation and keeps no state: what it refuses, it
// refuses before anything changes. JSON only.
//
// It differs where the reference is wrong: UpdateVm checks everything first and
// takes effect whole, ports are checked there as well, encrypted_env and
// user_config can be cleared (clear_encrypted_env, clear_user_config), StopVm lets
// the guest close its disk before it is killed.
package prpc

import (
	"errors"

	"github.com/confidential-cloud/phala/cvm"
)

// errorText is what a caller may read: coded errors with what to do about it.
func errorText(err error) string {
	var e *cvm.Error
	if !errors.As(err, &e) || e.Code == cvm.Internal {
		return "internal error (see the service's log)" // its text may hold anything
	}
	if e.Fix != "" {
		return err.Error() + " (" + e.Fix + ")"
	}
	return err.Error()
}
