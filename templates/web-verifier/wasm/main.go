//go:build js && wasm

// Command wasm is the verifier in a browser or in Node: index.js starts it and
// calls what it hands over. All it does is check.JSON; it keeps no state.
package main

import (
	"encoding/json"
	"errors"
	"syscall/js"
	"time"

	"github.com/confidential-cloud/phala/attest/check"
	"github.com/confidential-cloud/phala/cvm"
)

// handover is the function that index.js leaves for us: it takes check(evidence
// Uint8Array, options string, nowMillis number) -> string.
const handover = "__phalaWebVerifier"

func main() {
	js.Global().Call(handover, js.FuncOf(verify))
	select {} // serve until the page goes away
}

func verify(_ js.Value, args []js.Value) any {
	if len(args) != 3 {
		return failure(errors.New("want evidence, options and the time"))
	}
	n := args[0].Get("length").Int()
	if n > check.MaxInput {
		return failure(cvm.Errorf(cvm.Invalid, "evidence of %d bytes, at most %d", n, check.MaxInput))
	}
	evidence := make([]byte, n)
	js.CopyBytesToGo(evidence, args[0])
	report, err := check.JSON(evidence, []byte(args[1].String()), time.UnixMilli(int64(args[2].Float())))
	if err != nil {
		return failure(err)
	}
	return string(report)
}

// failure is {"error": {"code", "message", "reason", "fix"}}.
func failure(err error) string {
	var e *cvm.Error
	if !errors.As(err, &e) {
		e = cvm.Errorf(cvm.Internal, "%w", err)
	}
	b, err := json.Marshal(map[string]*cvm.Error{"error": e})
	if err != nil { // an Error holds strings
		return `{"error":{"code":"internal","message":"encoding failed"}}`
	}
	return string(b)
}
