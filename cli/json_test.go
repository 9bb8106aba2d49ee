package cli_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
)

// jsonCase is a command under --json: what to run, and the fields of its answer: ""
// for one that has to fail here (then the error's shape is what is checked), "*" for any,
// "?" where it is this machine that decides between the two.
type jsonCase struct{ args, fields string }

// noJSON are the commands without --json, each with its reason.
var noJSON = map[string]string{
	"completion":       "prints a script for a shell",
	"cvms logs":        "logs are text, and refuse --json",
	"cvms serial-logs": "logs are text, and refuse --json",
	"logs":             "logs are text, and refuse --json",
	"docker build":     "has Docker's streams and exit code", "docker login": "has Docker's streams and exit code",
	"docker push": "has Docker's streams and exit code", "docker run": "has Docker's streams and exit code",
	"up": "has phala-devcloud's streams", "down": "has phala-devcloud's streams",
	"evidence serve":  "is a web service until Ctrl-C",
	"simulator start": "is a service until Ctrl-C",
	"api":             "prints what the API answered, as it is",
	"self update":     "replaces this very program: what it prints is tested with it",
	"trust install":   "changes the system's store: it runs the system's own tool",
}

// jsonCases run in this order, against a cloud with the app two-a, two-b.
var jsonCases = []jsonCase{
	{"deploy -n hello -e SECRET=x --plan", "action app_compose approver chain_id changed changes compose_hash device_id env_names findings gpus gpus_needed hourly_rate kms_contract name notes owner ports success"},
	{"deploy -n hello -e SECRET=x", "action app_id compose_hash env_counter name simulated status success urls vm_uuid"},
	{"deploy -c missing.yml", ""},
	{"templates list", "items success total"}, {"templates show hello", "author compose defaultResource description envs id name repo success tags"},
	{"templates init hello made", "directory files needs success template"}, {"templates deploy hello -n other-app", "action app_id compose_hash env_counter name simulated status success urls vm_uuid"},
	{"cvms list", "items success total"}, {"cvms get hello", "*"}, {"cvms get nothing", ""},
	{"cvms stop hello", "app_id name status success vm_uuid"}, {"cvms start hello", "app_id name status success vm_uuid"}, {"cvms restart hello", "app_id name status success vm_uuid"},
	{"cvms attestation hello", ""}, {"cvms create -n third-app -c docker-compose.yml -e SECRET=x", "*"}, {"cvms upgrade hello -c docker-compose.yml", "*"},
	{"cvms device-allowlist hello", ""}, {"cvms list-nodes", "items success total"}, {"cvms replicate two-a", ""}, {"cvms resize hello --vcpu 2 --yes", "*"}, {"cvms runtime-config hello", "*"},
	{"cvms delete hello --yes", "app_id name status success vm_uuid volumes"},
	{"ps two-a", "items success total"}, {"apps", "*"}, {"instances ls --app-id " + appTwo, "0 1 items success total"}, {"instances add --app-id " + appTwo, ""}, {"instances rm nothing --yes", ""},
	{"runtime-config two-a", "*"}, {"envs encrypt two-a -e SECRET=x", "*"}, {"envs update two-a -e SECRET=x", ""},
	{"link two-a", "app_id file name profile success vm_uuid"},
	{"ssh two-a -g gw.example.com --dry-run", "command success"}, {"cp x two-a:/x -g gw.example.com --dry-run", "command success"}, {"ssh nothing", ""},
	{"ssh-keys list", "items success total"}, {"ssh-keys add --key-file missing", ""}, {"ssh-keys import-github somebody", "*"}, {"ssh-keys remove nothing", ""},
	{"allow-devices list two-a", ""}, {"allow-devices add two-a 00", ""}, {"allow-devices remove two-a 00", ""}, {"allow-devices allow-any two-a", ""}, {"allow-devices disallow-any two-a", ""}, {"allow-devices toggle-allow-any two-a", ""},
	{"nodes list", "items success total"}, {"node doctor", "?"}, {"node list", "*"}, {"node join", ""}, {"node drain", ""}, {"node undrain", ""}, {"node leave", ""}, {"node show", ""}, {"node check", "?"},
	{"kms list", "items success total"}, {"kms show nothing", ""}, {"kms base", "*"}, {"kms ethereum", ""},
	{"instance-types", "items success total"}, {"os-images", "items success total"}, {"usage", "balance success usage"}, {"usage --watch --interval 1ms", ""},
	{"invoices", "items success total"}, {"invoices 2026-01", "*"},
	{"status", "api_prefix credits profile success trust_profile user wallet workspace"}, {"whoami", "*"}, {"profiles list", "*"}, {"config list", "*"}, {"config get nothing", ""}, {"config set nothing x", "key success"},
	{"verify https://elsewhere.example.com", ""}, {"ledger status", ""}, {"ledger list", ""}, {"ledger show 0", ""}, {"ledger show x", ""}, {"ledger audit", ""},
	{"evidence check missing.json", ""}, {"collateral show missing", ""}, {"collateral export --out x", ""},
	{"measure missing", ""}, {"measure acpi --from-ccel missing", ""}, {"measure feed key --out feed.key --name feed.example.com", "*"}, {"measure feed sign missing --key feed.key --out x", ""}, {"measure feed verify missing --key x", ""},
	{"image list", "?"}, {"image gc", "?"}, {"image pull x", ""}, {"image push missing x", ""}, {"image rm nothing", ""}, {"volume make missing", ""},
	{"wallet show", "*"}, {"wallet create", ""}, {"wallet export", ""}, {"wallet import missing", ""},
	{"trust show", "*"}, {"trust use missing", ""}, {"simulator status", "*"}, {"simulator stop", "*"}, {"docker generate", ""}, {"doctor", "?"},
	{"login phak_good --url http://127.0.0.1:1", ""}, {"profiles use space", "*"}, {"profiles rename space room", "*"}, {"profiles rename room space", "*"}, {"profiles delete nothing", ""}, {"switch space", "*"},
	{"logout", "*"}, {"cvms list", ""},
}

// commandsOf reads the commands that do something from docs/cli.md, which TestDocs keeps
// complete.
func commandsOf(t *testing.T) (out []string) {
	t.Helper()
	f, err := os.Open("../docs/cli.md")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var all []string
	for sc := bufio.NewScanner(f); sc.Scan(); {
		line, ok := strings.CutPrefix(sc.Text(), "## phala ")
		if !ok {
			continue
		}
		var words []string
		for _, w := range strings.Fields(line) {
			if strings.ToLower(w) != w || strings.ContainsAny(w[:1], "<[-") {
				break
			}
			words = append(words, w)
		}
		all = append(all, strings.Join(words, " "))
	}
	for _, c := range all {
		if !slices.ContainsFunc(all, func(o string) bool { return strings.HasPrefix(o, c+" ") }) {
			out = append(out, c)
		}
	}
	return out
}

// TestEveryCommandHasJSON: with --json every command prints one object, with "success" as
// its exit code says, and an error's text, or is in noJSON with a reason.
func TestEveryCommandHasJSON(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.cloud.addTwo()
	seen := map[string]bool{}
	for _, c := range jsonCases {
		args := strings.Fields(c.args)
		for n := range args {
			seen[strings.Join(args[:n+1], " ")] = true
		}
		r := b.phala(append(args, "--json")...)
		var got map[string]any
		d := json.NewDecoder(bytes.NewReader([]byte(r.out)))
		if err := d.Decode(&got); err != nil || d.More() {
			t.Errorf("%s: not one object (%v), exit %d:\n%s%s", c.args, err, r.code, r.out, r.stderr)
			continue
		}
		ok, said := got["success"].(bool)
		fields := strings.Join(slices.Sorted(maps.Keys(got)), " ")
		switch {
		case !said || ok != (r.code == 0):
			t.Errorf("%s: exit %d, but success is %v", c.args, r.code, got["success"])
		case ok != (c.fields != "") && c.fields != "?":
			t.Errorf("%s: exit %d: %s%s", c.args, r.code, r.out, r.stderr)
		case !ok && got["findings"] == nil && (got["error"] == nil || got["error"] == ""):
			t.Errorf("%s: fails without an error: %s", c.args, r.out)
		case ok && c.fields != "*" && c.fields != "?" && fields != c.fields:
			t.Errorf("%s: the fields are %q, want %q", c.args, fields, c.fields)
		}
	}
	all := commandsOf(t)
	if len(all) < 80 {
		t.Fatalf("%d commands found", len(all))
	}
	for _, c := range all {
		if !seen[c] && noJSON[c] == "" {
			t.Errorf("phala %s: neither run with --json here, nor named in noJSON with a reason", c)
		}
	}
	for c := range noJSON {
		if !slices.Contains(all, c) {
			t.Errorf("noJSON: there is no phala %s", c)
		}
	}
}
