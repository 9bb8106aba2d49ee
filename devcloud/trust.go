package devcloud

import (
	"context"
	"encoding/hex"
	"os"
	"strings"

	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/internal/profile"
	"github.com/confidential-cloud/phala/ledger"
	"github.com/confidential-cloud/phala/verify"
)

// ProfileName is what the CLI calls this cloud.
const ProfileName = "local"

// trust is everything a verifier of this cloud should believe before it looks.
func (c *Cloud) trust() (verify.Profile, error) {
	ca, err := os.ReadFile(c.CACert())
	if err != nil {
		return verify.Profile{}, err
	}
	var keys []string
	for _, m := range c.meta.Members {
		keys = append(keys, m.VerifierKey)
	}
	variants, anyACPI := c.variants()
	snp, kds := c.snpPolicy()
	var roots []verify.RootPin
	for _, r := range c.simRoots() {
		roots = append(roots, verify.RootPin{SPKI: r, Platform: cvm.PlatformSimulated})
	}
	return verify.Profile{
		Version: verify.ProfileVersion, Name: "one-machine cloud (SIMULATED TEE)", APIURL: c.APIURL(),
		Chain: verify.Chains{ID: c.cfg.ChainID, RPCURLs: []string{c.rpcURL()}, KMSContract: c.contracts.KMS.Hex()},
		KMS: verify.KMSPins{
			RootSPKI: c.facts.KMSRoot, K256PubKey: hex.EncodeToString(c.facts.K256PubKey), URLs: c.memberURLs("127.0.0.1"),
		},
		TEE: verify.TEEPins{
			Roots: roots, SNP: snp, KDSURLs: kds,
			CollateralURLs: []string{c.collateralURL()}, TCBStatus: []string{"UpToDate"}, ImageVariants: variants, AnyACPI: anyACPI,
		},
		Gateway: verify.GatewayPin{
			AppID: c.facts.GatewayAppID, Domain: c.cfg.BaseDomain, Port: c.cfg.Ports.Gateway,
			Address: loopback(c.cfg.Ports.Gateway), CAPEM: string(ca),
		},
		LedgerKeys: ledger.Majority(c.meta.LedgerOrigin, keys),
	}, nil
}

func (c *Cloud) writeTrust(context.Context) error {
	t, err := c.trust()
	if err != nil {
		return err
	}
	b, err := t.Marshal()
	if err != nil {
		return err
	}
	head := "# What a verifier of this cloud believes. SIMULATED TEE: it proves nothing about hardware.\n"
	return writeFile(c.TrustPath(), append([]byte(head), b...))
}

// writeProfile logs the CLI in. Somebody's other login stays the current one.
func (c *Cloud) writeProfile(_ context.Context, note func(string, ...any)) error {
	dir := c.cfg.CLIDir
	if dir == "" {
		d, err := profile.Dir(os.Getenv)
		if err != nil {
			return err
		}
		dir = d
	}
	token, err := os.ReadFile(c.state.Path("api", "admin-key"))
	if err != nil {
		return err
	}
	before, err := profile.LoadCredentials(dir)
	if err != nil {
		return err
	}
	login := profile.Login{
		Token: strings.TrimSpace(string(token)), APIPrefix: c.APIURL(),
		Workspace: profile.Workspace{Name: "local", Slug: "local"}, User: profile.User{Username: "admin", Email: "admin@localhost"},
	}
	extra := profile.Extra{
		Trust: c.TrustPath(), Wallet: c.WalletPath(), Passphrase: c.WalletPath() + ".pass",
		Gateway: loopback(c.cfg.Ports.Gateway), CA: c.CACert(),
	}
	if err := profile.Put(dir, ProfileName, login, extra); err != nil {
		return err
	}
	if before.Current == "" || before.Current == ProfileName {
		return nil
	}
	after, err := profile.LoadCredentials(dir)
	if err != nil {
		return err
	}
	after.Current = before.Current
	note("your CLI stays on profile %q; use this cloud with --profile %s or `phala switch %s`", before.Current, ProfileName, ProfileName)
	return after.Save(dir)
}
