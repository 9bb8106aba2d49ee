package cli

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/governance/ethereum"
	"github.com/confidential-cloud/phala/internal/wallet"
	"github.com/confidential-cloud/phala/keys"
	"github.com/confidential-cloud/phala/verify"
)

// walletPath is the profile's wallet, or the one beside the logins.
func (s *session) walletPath() string {
	return first(s.extra.Wallet, filepath.Join(s.dir, "wallet.json"))
}

// passphrase comes from a file (profile or environment), else a person is asked.
func (a *app) passphrase(s *session, prompt string) ([]byte, error) {
	file := first(a.Getenv("PHALA_WALLET_PASSPHRASE_FILE"), s.extra.Passphrase)
	if file == "" {
		if beside := s.walletPath() + ".pass"; exists(beside) {
			file = beside
		}
	}
	if file != "" {
		return wallet.PassphraseFile(file)
	}
	if a.Secret == nil {
		return nil, cvm.Errorf(cvm.Invalid, "the wallet's passphrase is needed, and there is no terminal to ask at").
			WithFix("put it into a file (mode 0600) and set PHALA_WALLET_PASSPHRASE_FILE")
	}
	return a.Secret(prompt)
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// openWallet opens the owner's wallet, from --private-key's variable or the file.
func (a *app) openWallet(s *session) (*wallet.Wallet, error) {
	if _, err := wallet.Inspect(s.walletPath()); err != nil {
		return nil, err
	}
	pass, err := a.passphrase(s, "Passphrase of "+s.walletPath()+": ")
	if err != nil {
		return nil, err
	}
	return wallet.Load(s.walletPath(), pass)
}

// owner connects the wallet to the chain that the trust profile names.
func (a *app) owner(ctx context.Context, s *session, t *verify.Profile, rpc string) (*ethereum.Owner, *wallet.Wallet, error) {
	w, err := a.openWallet(s)
	if err != nil {
		return nil, nil, err
	}
	rpc = first(rpc, a.Getenv("ETH_RPC_URL"), t.Chain.RPCURLs[0])
	o, err := ethereum.NewOwner(ctx, ethereum.OwnerConfig{
		RPCURL: rpc, ChainID: t.Chain.ID, KMSContract: t.Chain.KMSContract, Final: t.Chain.Final,
	}, w)
	return o, w, err
}

func (a *app) walletCmd() *cobra.Command {
	return a.group("wallet", "The owner's key: it owns apps on chain and signs their environment",
		a.walletShowCmd(), a.walletCreateCmd(), a.walletImportCmd(), a.walletExportCmd())
}

func (a *app) walletShowCmd() *cobra.Command {
	return &cobra.Command{Use: "show", Short: "Show the wallet's address and where it is", Args: args(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			s, err := a.session()
			if err != nil {
				return err
			}
			info, err := wallet.Inspect(s.walletPath())
			if err != nil {
				return err
			}
			if a.json {
				return a.printJSON(map[string]any{"address": info.Address, "network": info.Network, "file": s.walletPath(), "created": info.Created})
			}
			a.printFields([]field{{"Address", info.Address}, {"Network", networkText(info.Network)},
				{"Created", info.Created.Format("2006-01-02 15:04:05 MST")}, {"File", s.walletPath()}})
			return nil
		}}
}

func networkText(n string) string {
	if n == wallet.Dev {
		return "development chains only"
	}
	return "chain " + n + " only"
}

const networkHelp = `"dev" for development chains, or a chain id`

func (a *app) walletCreateCmd() *cobra.Command {
	var network string
	c := &cobra.Command{Use: "create", Short: "Make a new key", Args: args(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			return a.newWallet(func(path string, pass []byte) (*wallet.Wallet, error) {
				return wallet.Create(path, network, pass)
			})
		}}
	c.Flags().StringVar(&network, "network", "", networkHelp)
	_ = c.MarkFlagRequired("network")
	return c
}

func (a *app) walletImportCmd() *cobra.Command {
	var network string
	c := &cobra.Command{Use: "import [FILE]", Short: "Take in a private key (hex) from a file or stdin",
		Long: "Take in a private key: 64 hex digits in FILE, or on stdin.\nIt is never taken from an argument, which other users of this machine could read.",
		Args: args(cobra.MaximumNArgs(1)),
		RunE: func(_ *cobra.Command, as []string) error {
			key, err := a.readKey(as)
			if err != nil {
				return err
			}
			return a.newWallet(func(path string, pass []byte) (*wallet.Wallet, error) {
				return wallet.Import(path, network, key, pass)
			})
		}}
	c.Flags().StringVar(&network, "network", "", networkHelp)
	_ = c.MarkFlagRequired("network")
	return c
}

func (a *app) readKey(as []string) (keys.Secret, error) {
	var b []byte
	var err error
	switch {
	case len(as) == 1 && as[0] != "-":
		b, err = os.ReadFile(a.path(as[0]))
		if errors.Is(err, fs.ErrNotExist) {
			return keys.Secret{}, cvm.Errorf(cvm.NotFound, "no such file").WithFix("give the path of a file that holds the key, or pipe the key to stdin")
		}
	case a.Secret != nil:
		b, err = a.Secret("Private key (hex): ")
	default:
		b, err = io.ReadAll(io.LimitReader(a.Stdin, 4096))
	}
	return keys.NewSecret(b), err
}

func (a *app) newWallet(make func(path string, pass []byte) (*wallet.Wallet, error)) error {
	s, err := a.session()
	if err != nil {
		return err
	}
	if exists(s.walletPath()) {
		return cvm.Errorf(cvm.Conflict, "there is a wallet already: %s", s.walletPath()).WithFix("move it away first: it may own apps")
	}
	pass, err := a.passphrase(s, "New passphrase: ")
	if err != nil {
		return err
	}
	w, err := make(s.walletPath(), pass)
	if err != nil {
		return err
	}
	a.say("%s", a.good("wallet "+w.Info().Address+" ("+networkText(w.Info().Network)+") in "+s.walletPath()))
	if a.json {
		return a.printJSON(map[string]any{"address": w.Info().Address, "file": s.walletPath()})
	}
	return nil
}

func (a *app) walletExportCmd() *cobra.Command {
	var yes bool
	c := &cobra.Command{Use: "export", Short: "Print the private key", Args: args(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			s, err := a.session()
			if err != nil {
				return err
			}
			if err := a.confirm(yes, "--yes", "Whoever sees the private key owns your apps. Print it?"); err != nil {
				return err
			}
			w, err := a.openWallet(s)
			if err != nil {
				return err
			}
			key := string(w.Export().Reveal())
			if a.json {
				return a.printJSON(map[string]any{"address": w.Info().Address, "private_key": key})
			}
			a.printf("%s\n", key)
			return nil
		}}
	c.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	return c
}

// chainText names a chain in a message.
func chainText(id uint64) string { return "chain " + strconv.FormatUint(id, 10) }
