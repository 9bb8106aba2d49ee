package cli_test

import (
	"context"
	"crypto/sha256"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/confidential-cloud/phala/cli"
	"github.com/confidential-cloud/phala/internal/profile"
	"github.com/confidential-cloud/phala/internal/wallet"
	"github.com/confidential-cloud/phala/test/simtrust"
	"github.com/confidential-cloud/phala/verify"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"phala": func() { os.Exit(cli.Run(context.Background(), cli.OS("test"))) },
	})
}

// TestScripts runs testdata/*.txtar: the command as a person runs it, against a
// cloud API in memory. $API is its prefix.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:           "testdata",
		UpdateScripts: os.Getenv("UPDATE_GOLDEN") != "",
		Setup: func(e *testscript.Env) error {
			f := newFakeCloud(e.T().(testing.TB))
			e.Values["cloud"] = f
			dir := filepath.Join(e.WorkDir, "home")
			e.Vars = append(e.Vars, "API="+f.prefix(), "PHALA_CLOUD_DIR="+dir, "NO_COLOR=1", "PHALA_CLOUD_API_PREFIX=", "PHALA_CLOUD_API_KEY=")
			big := "A_SECRET=" + strings.Repeat("x", 200<<10) + "\n"
			if err := os.WriteFile(filepath.Join(e.WorkDir, "big.env"), []byte(big), 0o600); err != nil {
				return err
			}
			if err := writeEvidence(e.WorkDir); err != nil {
				return err
			}
			return prepare(f, dir, f.prefix(), []string{"http://127.0.0.1:1"})
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			// cloud two: an app with two instances. cloud device END: how device logins end. cloud prepares HASH: what it makes
			// of an update that is prepared.
			"cloud": func(ts *testscript.TestScript, _ bool, args []string) {
				f, _ := ts.Value("cloud").(*fakeCloud)
				f.mu.Lock()
				defer f.mu.Unlock()
				switch args[0] {
				case "two":
					f.addTwo()
				case "device":
					f.deviceDefault = args[1]
				case "prepares":
					f.prepared = args[1]
				default:
					ts.Fatalf("unknown: cloud %s", args[0])
				}
			},
			// exits CODE phala ...: the exit codes are part of the interface.
			"exits": func(ts *testscript.TestScript, _ bool, args []string) {
				err := ts.Exec(args[1], args[2:]...)
				got := "0"
				if err != nil {
					got = strings.TrimPrefix(err.Error(), "exit status ")
				}
				if got != args[0] {
					ts.Fatalf("exit code %s, want %s", got, args[0])
				}
			},
		},
	})
}

// prepare writes a login "space" (not the current one until a script says so), a
// trust profile that pins the fake's KMS, and a dev wallet.
func prepare(f *fakeCloud, dir, prefix string, rpc []string) error {
	if _, err := wallet.OpenDev(filepath.Join(dir, "wallet.json")); err != nil {
		return err
	}
	p, err := trustProfile(f, rpc)
	if err != nil {
		return err
	}
	b, err := p.Marshal()
	if err != nil {
		return err
	}
	trust := filepath.Join(dir, "trust.toml")
	if err := profile.WriteFile(trust, b); err != nil {
		return err
	}
	c := &profile.Credentials{SchemaVersion: 1, Profiles: map[string]profile.Login{
		"space": {Token: goodKey, APIPrefix: prefix, Workspace: profile.Workspace{Name: "Test Space", Slug: "test-space"}, User: profile.User{Username: "tester"}}}}
	x := &profile.Extras{Profiles: map[string]profile.Extra{"space": {Trust: trust}}}
	if err := x.Save(dir); err != nil {
		return err
	}
	return c.Save(dir)
}

func trustProfile(f *fakeCloud, rpc []string) (verify.Profile, error) {
	p, err := simtrust.New(f.root, sha256.Sum256([]byte("a TEE root")), "http://127.0.0.1:1")
	p.Chain = verify.Chains{ID: *f.kms.ChainID, RPCURLs: rpc, KMSContract: *f.kms.KMSContractAddress}
	return p, err
}
