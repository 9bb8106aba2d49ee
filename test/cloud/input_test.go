package cloud

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/ethclient"
)

const (
	exitInvalid  = 2 // cli.ExitInvalid: the input is wrong and nothing was changed
	exitNotFound = 4 // cli.ExitNotFound
)

// traces are what a deploy leaves behind: CVMs, machines, and transactions of the
// owner's wallet (a contract is one).
type traces struct {
	cvms, vms string
	nonce     uint64
}

func look(t *testing.T) (s traces) {
	t.Helper()
	var list struct {
		Items []struct {
			ID string `json:"vm_uuid"`
		} `json:"items"`
	}
	r := quietly(t, "cvms", "list", "--json")
	if err := json.Unmarshal([]byte(r.out), &list); r.code != 0 || err != nil {
		t.Fatalf("cvms list: %d, %v: %s%s", r.code, err, r.out, r.err)
	}
	for _, i := range list.Items {
		s.cvms += i.ID + " "
	}
	vms, err := theVMM(t).List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range vms {
		s.vms += v.Spec.ID + " "
	}
	chain, err := ethclient.DialContext(t.Context(), theCloud.RPCURL())
	if err != nil {
		t.Fatal(err)
	}
	defer chain.Close()
	if s.nonce, err = chain.PendingNonceAt(t.Context(), common.HexToAddress(theCloud.Wallet().Info().Address)); err != nil {
		t.Fatal(err)
	}
	return s
}

// TestInvalidInput: wrong input is refused with what and where, by the exit code
// that says so, and leaves nothing behind.
func TestInvalidInput(t *testing.T) {
	cloud(t)
	const good = "services:\n  web:\n    image: phala-templates/hello:1\n    ports: [\"80:80\"]\n"
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	ok := file("good.yml", good)
	secret := strings.Repeat("s3", 70<<10) // over the limit of one value, from a file: it is longer than an argument may be
	before := look(t)
	deploy := func(compose string, more ...string) []string {
		return append([]string{"deploy", "-c", compose, "-n", "never-made", "-t", "tdx.small"}, more...)
	}
	for _, tc := range []struct {
		name string
		args []string
		says []string
	}{
		{"broken YAML", deploy(file("broken.yml", "services:\n  web:\n    image: a\n   ports: [\n")), []string{"broken.yml", "line 4"}},
		{"no services", deploy(file("empty.yml", "volumes:\n  data: {}\n")), []string{"empty.yml", "services"}},
		{"port 70000", deploy(file("port.yml", strings.Replace(good, "80:80", "70000:80", 1))), []string{"port.yml", "line 4", "70000", "65535"}},
		{"name too short", []string{"deploy", "-c", ok, "-n", "abcd"}, []string{`"abcd" is too short`, "minimum is 5"}},
		{"name with a space", []string{"deploy", "-c", ok, "-n", "never made"}, []string{`"never made"`, "letters, digits"}},
		{"name with two dashes", []string{"deploy", "-c", ok, "-n", "never--made"}, []string{`"never--made"`, "single dashes"}},
		{"disk below the minimum", deploy(ok, "--disk-size", "5G"), []string{"disk_size", "5 GB", "20"}},
		{"disk without a number", deploy(ok, "--disk-size", "plenty"), []string{"--disk-size", "plenty"}},
		{"unknown instance type", deploy(ok, "-t", "tdx.gigantic"), []string{"tdx.gigantic", "tdx.small"}},
		{"secret over the limit", deploy(ok, "-e", file("long.env", "BIG="+secret+"\n")), []string{"BIG", strconv.Itoa(len(secret)), "limit"}},
		{"bad variable name", deploy(ok, "-e", "MY-SECRET="+theSecret), []string{"MY-SECRET", "letters, digits and _"}},
		{"line without =", deploy(ok, "-e", file("bad.env", "# fine\nGOOD=1\nnonsense\n")), []string{"bad.env:3", "NAME=value"}},
		{"required variable missing", deploy(file("need.yml", good+"    environment:\n      A: ${NEEDED:?}\n")), []string{"NEEDED"}},
		{"no compose file", deploy(filepath.Join(dir, "nowhere.yml")), []string{"nowhere.yml"}},
		{"unknown flag", []string{"deploy", "--colour", "red"}, []string{"--colour", "--help"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := phala(t, tc.args...)
			r.says(t, exitInvalid, tc.says...)
			if strings.Contains(r.out+r.err, theSecret) || strings.Contains(r.out+r.err, secret[:100]) {
				t.Error("the error shows the secret's value")
			}
		})
	}
	t.Run("unknown image", func(t *testing.T) { // well-formed, but no node has it
		phala(t, deploy(ok, "--image", "no-such-image")...).says(t, exitNotFound, `no image "no-such-image"`, "it has: ", "phala-container")
	})
	if after := look(t); after != before {
		t.Errorf("before: %+v\nafter: %+v", before, after)
	}
	t.Run("no such CVM", func(t *testing.T) {
		for _, args := range [][]string{{"cvms", "get", "nobody-is-this"}, {"cvms", "restart", "nobody-is-this"}, {"logs", "--cvm-id", "nobody-is-this"}} {
			phala(t, args...).says(t, exitNotFound, "nobody-is-this")
		}
	})
}
