package ethereum

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/accounts/abi/bind/v2"
	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/ethclient"

	"github.com/confidential-cloud/phala/cvm"
)

// returning is code that returns what stands behind it. It deploys code, and it answers
// everything with data: (ok, reason) of isAppAllowed, say.
func returning(data []byte) []byte {
	n := byte(len(data))
	return append([]byte{0x60, n, 0x60, 10, 0x5f, 0x39, 0x60, n, 0x5f, 0xf3}, data...) // PUSH n, PUSH 10, PUSH0, CODECOPY, PUSH n, PUSH0, RETURN
}

// answer is (ok, reason) as contracts write it.
func answer(ok byte, reason string) (out []byte) {
	for _, word := range []byte{ok, 0x40, byte(len(reason))} {
		out = append(out, common.LeftPadBytes([]byte{word}, 32)...)
	}
	return append(out, common.RightPadBytes([]byte(reason), 32)...)
}

// TestAuthorityOfItsOwn: the authority of an app is whatever stands at its address, ours or
// not. It refuses with its own reason, and one that does not answer, or answers with
// something else, refuses too. (Acceptance row S4.)
func TestAuthorityOfItsOwn(t *testing.T) {
	c := newCloud(t)
	r := c.reader()
	for name, x := range map[string]struct {
		code    []byte
		allowed bool
		reason  string
	}{
		"refuses":      {code: returning(answer(0, "closed until the audit is done")), reason: "closed until the audit is done"},
		"allows":       {code: returning(answer(1, "")), allowed: true},
		"never ends":   {code: []byte{0x5b, 0x5f, 0x56}}, // JUMPDEST, PUSH0, JUMP
		"says nothing": {code: []byte{0x00}},             // STOP
		"gives up":     {code: []byte{0xfe}},             // INVALID
	} {
		t.Run(name, func(t *testing.T) {
			var app cvm.AppID
			c.mining(func() {
				opts, err := c.owner.signer.TransactOpts(1337, true)
				if err != nil {
					t.Fatal(err)
				}
				opts.Context = t.Context()
				at, tx, err := bind.DeployContract(opts, returning(x.code), c.rpc(), nil)
				if err != nil {
					t.Fatal(err)
				}
				if _, err := bind.WaitDeployed(t.Context(), c.rpc(), tx.Hash()); err != nil {
					t.Fatal(err)
				}
				app = cvm.AppID(at)
				if err := c.owner.Apply(t.Context(), nil, RegisterApp(app)); err != nil {
					t.Fatal(err)
				}
			})
			b := c.request()
			b.AppID = app
			d, err := r.AuthorizeApp(t.Context(), b)
			if d.Allowed != x.allowed || x.reason != "" && d.Reason != x.reason || !d.Allowed && err == nil && d.Reason == "" {
				t.Errorf("%+v, %v", d, err)
			}
		})
	}
	// A node that takes the question and is silent: nobody waits longer than they want to.
	silent := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, q *http.Request) {
		_, _ = io.Copy(io.Discard, q.Body) // else nobody sees that the other side left
		<-q.Context().Done()
	}))
	t.Cleanup(silent.Close)
	e, err := ethclient.Dial(silent.URL)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Close)
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if d, err := c.reader(e).AuthorizeApp(ctx, c.request()); d.Allowed || cvm.CodeOf(err) != cvm.Unavailable {
		t.Errorf("of a silent node: %+v, %v", d, err)
	}
	if d, err := c.reader(c.rpc(), e).AuthorizeApp(ctx, c.request()); d.Allowed || err == nil {
		t.Errorf("of two nodes with a silent one: %+v, %v", d, err)
	}
}
