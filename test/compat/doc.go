// Package compat runs the unmodified public CLI (npm phala) and SDK (npm
// @phala/cloud) against our cloud API: every leaf command, with the requests it is
// known to make and what it must print. table_test.go is the list with a verdict
// per command; docs/compat.md is written from it.
package compat
