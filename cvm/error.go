package cvm

import (
	"errors"
	"fmt"
)

// Code classifies an error at an edge. internal/rpc maps codes to HTTP both ways.
type Code string

const (
	Invalid         Code = "invalid"         // the request is wrong; sending it again will not help
	Unauthenticated Code = "unauthenticated" // who are you
	Denied          Code = "denied"          // known, and not allowed
	NotFound        Code = "not_found"
	Conflict        Code = "conflict"
	Precondition    Code = "precondition" // the state is not ready for this
	Exhausted       Code = "exhausted"    // a limit was reached
	Unavailable     Code = "unavailable"  // try again later
	Unsupported     Code = "unsupported"
	Internal        Code = "internal"
)

// Error is the coded error that crosses an edge. Reason is a stable machine word
// (for example "compose-hash-not-allowed"), Message is for a person and says what
// and where, Fix what to do next. All may be shown to the caller: no secrets.
type Error struct {
	Code    Code   `json:"code"`
	Reason  string `json:"reason,omitempty"`
	Message string `json:"message"`
	Fix     string `json:"fix,omitempty"`
	Err     error  `json:"-"`
}

func (e *Error) Error() string { return e.Message }
func (e *Error) Unwrap() error { return e.Err }

// Errorf makes a coded error; %w keeps the cause for errors.Is and errors.As.
func Errorf(code Code, format string, args ...any) *Error {
	err := fmt.Errorf(format, args...)
	return &Error{Code: code, Message: err.Error(), Err: errors.Unwrap(err)}
}

// WithReason sets the machine word.
func (e *Error) WithReason(r string) *Error { e.Reason = r; return e }

// WithFix says what the person can do next.
func (e *Error) WithFix(f string) *Error { e.Fix = f; return e }

// CodeOf finds the code of the nearest coded error, or Internal.
func CodeOf(err error) Code {
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return Internal
}

// ReasonOf finds the machine word of the nearest coded error, or "".
func ReasonOf(err error) string {
	var e *Error
	if errors.As(err, &e) {
		return e.Reason
	}
	return ""
}
