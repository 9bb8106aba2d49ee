package cli

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"time"

	"github.com/spf13/cobra"

	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/governance/ethereum"
	"github.com/confidential-cloud/phala/internal/wallet"
	"github.com/confidential-cloud/phala/verify"
)

// finding is one thing that doctor looked at.
type finding struct {
	Name  string `json:"name"`
	State string `json:"state"` // ok, warning, failed, skipped
	Text  string `json:"text"`
	Fix   string `json:"fix,omitempty"`
}

const (
	stateOK      = "ok"
	stateWarning = "warning"
	stateFailed  = "failed"
	stateSkipped = "skipped"
)

// doctorTime bounds each question to a service.
const doctorTime = 10 * time.Second

func (a *app) doctorCmd() *cobra.Command {
	return &cobra.Command{Use: "doctor", Short: "Look for what is in the way of deploying and verifying", Args: args(cobra.NoArgs),
		Long: "Look at the login, the cloud, the trust profile, the wallet, the chain and the tools of\nthis machine, and say what to do. Nothing is changed. The exit code is 1 when something failed.",
		RunE: func(c *cobra.Command, _ []string) error {
			found := a.examine(c.Context())
			failed := 0
			for _, f := range found {
				if f.State == stateFailed {
					failed++
				}
			}
			if a.json {
				if err := writeJSON(a.Stdout, map[string]any{"success": failed == 0, "findings": found}); err != nil {
					return err
				}
			} else {
				a.showFindings(found)
			}
			if failed > 0 {
				a.reported = true
				return cvm.Errorf(cvm.Internal, "%s failed", plural(failed, "check"))
			}
			return nil
		}}
}

func (a *app) showFindings(found []finding) {
	p := a.onOut()
	for _, f := range found {
		mark := map[string]string{stateOK: p.good(""), stateWarning: p.warn(""), stateFailed: p.bad("")}[f.State]
		a.printf("%s%-14s %s\n", first(mark, "- "), f.Name, f.Text)
		if f.Fix != "" {
			a.printf("  fix: %s\n", f.Fix)
		}
	}
}

// examine goes from this machine outwards; what rests on something that failed is
// skipped, and says so.
func (a *app) examine(ctx context.Context) (out []finding) {
	add := func(name, state, text, fix string) { out = append(out, finding{name, state, text, fix}) }
	check := func(name, text string, err error) bool {
		if err == nil {
			add(name, stateOK, text, "")
			return true
		}
		fix := ""
		var ce *cvm.Error
		if errors.As(err, &ce) {
			fix = ce.Fix
		}
		add(name, stateFailed, err.Error(), fix)
		return false
	}
	s, err := a.session()
	if !check("configuration", "", err) {
		return out
	}
	out[0].Text = s.dir
	if _, err := a.loggedIn(); err != nil {
		check("login", "", err)
	} else {
		ask, cancel := context.WithTimeout(ctx, doctorTime)
		me, err := s.api.Me(ask)
		cancel()
		check("login", me.User.Username+" at "+s.api.Base+" (profile "+s.name+")", a.explain(s, err))
	}
	t, path, err := a.trust(s, "")
	trusted := check("trust profile", path, err)
	info, err := wallet.Inspect(s.walletPath())
	hasWallet := check("wallet", info.Address, err)
	if !trusted {
		add("chain", stateSkipped, "no trust profile names one", "")
	} else {
		a.examineChain(ctx, t, hasWallet, info.Address, check, add)
	}
	for _, tool := range []struct{ name, what string }{{"docker", "phala docker"}, {"ssh", "phala ssh"}, {"scp", "phala cp"}} {
		if _, err := exec.LookPath(tool.name); err != nil {
			add(tool.name, stateWarning, "not installed: "+tool.what+" cannot work", "install "+tool.name+", if you want it")
			continue
		}
		add(tool.name, stateOK, "installed", "")
	}
	return out
}

func (a *app) examineChain(ctx context.Context, t *verify.Profile, hasWallet bool, address string, check func(string, string, error) bool, add func(name, state, text, fix string)) {
	ask, cancel := context.WithTimeout(ctx, doctorTime)
	defer cancel()
	c, err := ethereum.Dial(ask, first(a.Getenv("ETH_RPC_URL"), t.Chain.RPCURLs[0]))
	if err != nil {
		check("chain", "", err)
		return
	}
	defer c.Close()
	id, _, err := ethereum.Detect(ask, c)
	if err == nil && id != t.Chain.ID {
		err = cvm.Errorf(cvm.Precondition, "the RPC endpoint is on chain %d, the trust profile's is %d", id, t.Chain.ID).WithFix("check rpc_urls, or ETH_RPC_URL")
	}
	if !check("chain", fmt.Sprintf("chain %d answers", id), err) || !hasWallet {
		return
	}
	who, err := ethereum.ParseAddress(address)
	if err != nil {
		check("balance", "", err)
		return
	}
	b, err := c.BalanceAt(ask, who, nil)
	switch {
	case err != nil:
		check("balance", "", err)
	case b.Sign() == 0:
		add("balance", stateWarning, "the wallet is empty: it cannot pay for transactions", "send some to "+address)
	default:
		add("balance", stateOK, b.String()+" wei", "")
	}
}
