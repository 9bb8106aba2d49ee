package compat

import (
	"regexp"
	"slices"
	"strings"
	"testing"
)

// unrun are the flags that no step runs, by command ("": of every command), and why.
var unrun = []struct{ command, flag, reason string }{
	{"", "--interactive", "chooses on a terminal what the arguments say otherwise, and sends the same requests"},
	{"", "--version", "asks no cloud"},
	{"simulator start", "--port", "it downloads a program"},
	{"simulator start", "--verbose", "it downloads a program"},
}

// optionsOf reads the options of one command's help: each as its names. --x and --no-x
// are two.
func optionsOf(help string) (all [][]string) {
	for _, m := range regexp.MustCompile(`(?m)^  (-\S.*?)(?:  .*)?$`).FindAllStringSubmatch(help, -1) {
		names := regexp.MustCompile(`(?:^|[ ,])(--?[a-z][\w-]*|-[A-Z])`).FindAllStringSubmatch(m[1], -1)
		var same []string
		for _, n := range names {
			if yes, ok := strings.CutPrefix(n[1], "--no-"); ok && slices.Contains(same, "--"+yes) {
				all = append(all, []string{n[1]})
				continue
			}
			same = append(same, n[1])
		}
		all = append(all, same)
	}
	return all
}

// TestEveryFlag: each flag that the recorded help names is run by a step of its command
// (one of every command: by any step), or has a reason in unrun, and not both.
func TestEveryFlag(t *testing.T) {
	used := map[string][]string{}
	for _, st := range steps() {
		for _, word := range strings.Fields(st.args) {
			used[st.cmd], used[""] = append(used[st.cmd], word), append(used[""], word)
		}
	}
	runs := func(command string, names []string) bool {
		return slices.ContainsFunc(names, func(n string) bool { return slices.Contains(used[command], n) })
	}
	global := []string{"--api-token", "--json", "--no-json", "--interactive", "--cvm-id", "--profile", "--api-version", "--version", "--help"}
	flags, seen := 0, map[string]bool{}
	for command, help := range helpTexts(t) {
		for _, names := range optionsOf(help) {
			of := command
			if slices.ContainsFunc(names, func(n string) bool { return slices.Contains(global, n) }) {
				of = ""
				names = slices.DeleteFunc(names, func(n string) bool { return len(n) == 2 }) // -v and -i mean others elsewhere
			}
			flags++
			i := slices.IndexFunc(unrun, func(u struct{ command, flag, reason string }) bool {
				return u.command == of && slices.Contains(names, u.flag)
			})
			if i >= 0 {
				seen[unrun[i].command+unrun[i].flag] = true
			}
			if slices.Contains(names, "--help") || (i < 0) == runs(of, names) {
				continue
			}
			t.Errorf("phala %s %s: run by a step: %v; a reason for not running it: %v", command, strings.Join(names, ", "), runs(of, names), i >= 0)
		}
	}
	for _, u := range unrun {
		if !seen[u.command+u.flag] || u.reason == "" {
			t.Errorf("unrun has %q %s, which the help has not", u.command, u.flag)
		}
	}
	if flags < 700 {
		t.Errorf("%d flags in the recorded help", flags)
	}
}

// flagged runs the flags that the lives in table_test.go have no use for, on an app of
// their own.
var flagged = []step{
	{cmd: "deploy", args: "-n flag-app -c docker-compose.yml -t tdx.small -r us-test --node-id 1 --image dstack-0.5.5 --disk-size 30G --fs ext4 --pre-launch-script pre.sh -e .env --kms phala --listed --no-public-sysinfo --no-public-logs --no-dev-os --debug --json",
		want: []string{`"success": true`}, calls: "POST /cvms/provision, POST /cvms", save: "uuid=vm_uuid app=app_id", rest: "flag-app"},
	{cmd: "api", args: "/cvms/flag-app/compose_file", want: []string{`"storage_fs": "ext4"`, `"pre_launch_script": "echo before\n"`, `"public_logs": false`, `"public_sysinfo": false`, `"GREETING"`}, calls: "GET /cvms/flag-app/compose_file"},
	{cmd: "cvms get", args: "--cvm-id flag-app --no-json", want: []string{"flag-app", "app_{app}"}, calls: "GET /cvms/flag-app"},
	{cmd: "cvms get", args: "flag-app --json", want: []string{`"disk_in_gb": 30`, `"listed": true`}, calls: "GET /cvms/flag-app"},

	{cmd: "apps", args: "--page 1 --page-size 1 --status running --listed --base-image dstack-0.5.5 --instance-type tdx.small --kms-type phala --node local --region us-test --json", want: []string{"{app}"}, calls: "GET /apps, POST /status/batch"},
	{cmd: "apps", args: "--page 9 --page-size 1 --json", want: []string{`"items": []`}, calls: "GET /apps"},
	{cmd: "apps", args: "--no-listed --json", want: []string{`"total": `}, lacks: []string{"flag-app"}, calls: "GET /apps..."},
	{cmd: "apps", args: "--region elsewhere --json", want: []string{`"total": 0`}, calls: "GET /apps"},
	{cmd: "apps", args: "--node other --json", want: []string{`"total": 0`}, calls: "GET /apps"},
	{cmd: "cvms list", args: "--page 1 --page-size 5 --search flag-app --listed --base-image dstack-0.5.5 --instance-type tdx.small --kms-type phala --node local --region us-test --json", want: []string{"{app}"}, calls: "GET /apps, POST /status/batch"},
	{cmd: "cvms list", args: "--no-listed --search flag-app --json", want: []string{`"total": 0`}, calls: "GET /apps"},
	{cmd: "cvms list", args: "--base-image none --json", want: []string{`"total": 0`}, calls: "GET /apps"},
	{cmd: "cvms list", args: "--instance-type tdx.xlarge --json", want: []string{`"total": 0`}, calls: "GET /apps"},
	{cmd: "cvms list", args: "--kms-type base --json", want: []string{`"total": 0`}, calls: "GET /apps"},

	{cmd: "deploy", args: "--uuid {uuid} -c docker-compose.yml --public-logs --public-sysinfo --no-listed", calls: "GET /cvms/{uuid32}, PATCH /cvms/{uuid32}...", rest: "flag-app"},
	{cmd: "api", args: "/cvms/flag-app/compose_file", want: []string{`"public_logs": true`, `"public_sysinfo": true`}, calls: "GET /cvms/flag-app/compose_file"},
	{cmd: "deploy", args: "-n sized-app -c docker-compose.yml --vcpu 2 --memory 4096 --env-file .env --kms-id kms-test --json", want: []string{`"success": true`}, calls: "POST /cvms/provision, POST /cvms", save: "sized=vm_uuid", rest: "sized-app"},
	{cmd: "cvms get", args: "sized-app --json", want: []string{`"vcpu": 2`, `"memory_in_gb": 4,`}, calls: "GET /cvms/sized-app"},
	{cmd: "instances rm", args: "{sized} --force", calls: "DELETE /cvms/{sized32}"},
	{cmd: "deploy", args: "-n own-id-app -c docker-compose.yml --custom-app-id 1234567890123456789012345678901234567890 --nonce 7", exit: 1, want: []string{"leave app_id out"}, calls: "POST /cvms/provision"},
	{cmd: "deploy", args: "-n dev-app -c docker-compose.yml --dev-os --ssh-pubkey id.pub --json", want: []string{`"success": true`}, calls: "POST /cvms/provision, POST /cvms", rest: "dev-app"},
	{cmd: "cvms get", args: "dev-app --json", want: []string{"dstack-dev-0.5.5"}, calls: "GET /cvms/dev-app"},
	{cmd: "cvms delete", args: "dev-app -f", want: []string{"deleted"}, calls: "GET /cvms/dev-app, DELETE /cvms/dev-app"},

	{cmd: "logs", args: "web --cvm-id flag-app -n 1 -t", want: []string{"2023-11-14T22:15:20Z third line"}, lacks: []string{"hello from web"}, calls: "GET /cvms/flag-app/composition"},
	{cmd: "logs", args: "web --cvm-id flag-app --since 2023-11-14T22:15:00Z", want: []string{"third line"}, lacks: []string{"hello from web"}, calls: "GET /cvms/flag-app/composition"},
	{cmd: "logs", args: "web --cvm-id flag-app --until 2023-11-14T22:14:00Z", want: []string{"hello from web"}, lacks: []string{"third line"}, calls: "GET /cvms/flag-app/composition"},
	{cmd: "logs", args: "web --cvm-id flag-app --since 1h", lacks: []string{"hello from web", "third line"}, calls: "GET /cvms/flag-app/composition..."},
	{cmd: "logs", args: "web --cvm-id flag-app --since yesterday", exit: 1, want: []string{"400"}, calls: "GET /cvms/flag-app/composition..."},
	{cmd: "logs", args: "web --cvm-id flag-app", want: []string{"hello from web", "third line"}, lacks: []string{"second line"}, calls: "GET /cvms/flag-app/composition"},
	{cmd: "logs", args: "nobody --cvm-id flag-app", exit: 1, want: []string{"not found"}, calls: "GET /cvms/flag-app/composition..."},
	{cmd: "logs", args: "web --cvm-id flag-app -f", see: "third line", then: interrupt, want: []string{"hello from web"}, calls: "GET /cvms/flag-app/composition"},
	{cmd: "logs", args: "--serial --cvm-id flag-app --follow", see: "dry guest of flag-app", then: interrupt, calls: "GET /cvms/flag-app"},
	{cmd: "logs", args: "--serial --cvm-id flag-app -t --until 1h", lacks: []string{"dry guest of flag-app"}, calls: "GET /cvms/flag-app"},
	{cmd: "logs", args: "--serial --cvm-id flag-app -t --since 1h -n 1", want: []string{"Z dry guest of flag-app"}, calls: "GET /cvms/flag-app"},
	{cmd: "logs", args: "--cvm-stdout --cvm-id flag-app -f -n 1", see: "dry machine of flag-app", then: interrupt, calls: "GET /cvms/flag-app"},
	{cmd: "logs", args: "--cvm-stderr --cvm-id flag-app --follow --since 1h", see: "no machine runs", then: interrupt, calls: "GET /cvms/flag-app"},
	{cmd: "logs", args: "--cvm-stderr --cvm-stdout --cvm-id flag-app", exit: 1, want: []string{"mutually exclusive"}},
	{cmd: "cvms logs", args: "flag-app -n 1 -t -c web", want: []string{"2023-11-14T22:15:20Z third line"}, lacks: []string{"hello from web"}, calls: "GET /cvms/flag-app/composition"},
	{cmd: "cvms logs", args: "flag-app -f", see: "third line", then: interrupt, exit: anyExit, calls: "GET /cvms/flag-app/composition"},
	{cmd: "cvms serial-logs", args: "flag-app -f -t", see: "Z dry guest of flag-app", then: interrupt, exit: anyExit, calls: "GET /cvms/flag-app"},

	{cmd: "ssh", args: "flag-app --dry-run -p 8443 -g gw.test -t 5 -v", want: []string{"root@flag-app-22.gw.test", "8443", "ConnectTimeout=5"}},
	{cmd: "cp", args: "-r -v -i id.pub -p 8443 -g gw.test . flag-app:/root/x --dry-run", want: []string{"-r", "-i id.pub", "8443", "root@flag-app-22.gw.test:/root/x"}},
	{cmd: "envs encrypt", args: "flag-app -n -e GREETING=sealed", calls: "GET /cvms/flag-app", save: "sealed="},
	{cmd: "envs update", args: "flag-app --encrypted-env {sealed}", want: []string{"correlation_id"}, calls: "GET /cvms/flag-app, PATCH /cvms/{cvm}/envs", rest: "flag-app"},
	{cmd: "cvms upgrade", args: "flag-app -c next.yml -e .env --debug", calls: "GET /cvms/flag-app...", rest: "flag-app"},
	{cmd: "cvms replicate", args: "flag-app --node-id 1 -e .env --json", calls: "GET /cvms/flag-app...", save: "replica=vm_uuid", rest: "{replica}"},
	{cmd: "instances add", args: "--app-id {app} --node-id 1 -c docker-compose.yml --pre-launch-script pre.sh -e .env --json", calls: "GET /apps/{app}/cvms, GET /cvms/{replica32}, POST /apps/{app}/instances", save: "instance=vm_uuid", rest: "{instance}"},
	{cmd: "instances rm", args: "{replica} {instance} -f", calls: "DELETE /cvms/{replica32}, DELETE /cvms/{instance32}"},
	{cmd: "cvms create", args: "-n whole-app -c docker-compose.yml --vcpu 2 --memory 4096 --disk-size 30 --teepod-id 1 --image dstack-0.5.5 --skip-env --debug",
		calls: "GET /teepods/available, POST /cvms/pubkey/from_cvm_configuration, POST /cvms/from_cvm_configuration", rest: "whole-app"},
	{cmd: "cvms create", args: "-n env-app -c docker-compose.yml --image dstack-0.5.5 -e .env", exit: 1, want: []string{"a guest drops variables that the app-compose does not name"},
		calls: "GET /teepods/available, POST /cvms/pubkey/from_cvm_configuration, POST /cvms/from_cvm_configuration"},
	{cmd: "cvms get", args: "whole-app --json", want: []string{`"vcpu": 2`, `"memory_in_gb": 4,`, `"disk_in_gb": 30`}, calls: "GET /cvms/whole-app"},
	{cmd: "cvms delete", args: "whole-app --yes", calls: "GET /cvms/whole-app, DELETE /cvms/whole-app"},

	{cmd: "api", args: "/cvms/provision -X POST -F name=raw-app -F instance_type=tdx.small -F compose_file:=@body.json -H X-Phala-Version:2025-10-28", want: []string{"compose_hash"}, calls: "POST /cvms/provision"},
	{cmd: "api", args: "/apps -f search=flag-app -f page=1 -i", want: []string{"200", "content-type", "{app}"}, calls: "GET /apps"},
	{cmd: "api", args: `/cvms/flag-app/visibility -X PATCH -d {"public_logs":false,"public_sysinfo":true} --silent`, lacks: []string{"flag-app"}, calls: "PATCH /cvms/flag-app/visibility", rest: "flag-app"},
	{cmd: "api", args: "/cvms/flag-app/visibility -X PATCH --input visible.json", want: []string{"flag-app"}, calls: "PATCH /cvms/flag-app/visibility", rest: "flag-app"},
	{cmd: "cvms delete", args: "flag-app -f", want: []string{"deleted"}, calls: "GET /cvms/flag-app, DELETE /cvms/flag-app"},
}

// signing runs the ways to sign in, and what else is not about one CVM.
var signing = []step{
	{cmd: "login", args: "--no-open", noKey: true, see: "[A-Z]{4}-[A-Z]{4}", then: approve, want: []string{"Welcome admin"}, calls: "POST /auth/device/code, POST /auth/device/token..."},
	{cmd: "status", args: "-d", noKey: true, want: []string{"admin"}, calls: "GET /auth/me"},
	{cmd: "cvms list", args: "--profile default --json", noKey: true, want: []string{`"total"`}, calls: "GET /apps..."},
	{cmd: "logout", want: []string{"removed"}},
	{cmd: "auth login", args: "--manual --no-open", noKey: true, in: "{key}\n", want: []string{"default"}, calls: "GET /auth/me"},
	{cmd: "auth status", args: "-d", noKey: true, want: []string{"admin"}, calls: "GET /auth/me"},
	{cmd: "auth logout", noKey: true, want: []string{"removed"}},
	{cmd: "login", args: "--no-open --print-token", noKey: true, see: "[A-Z]{4}-[A-Z]{4}", then: approve, want: []string{"phak_"}, calls: "POST /auth/device/code, POST /auth/device/token..."},
	{cmd: "status", noKey: true, want: []string{"Not"}},
	{cmd: "login", args: "--manual", noKey: true, in: "{key}\n", want: []string{"Welcome admin"}, calls: "GET /auth/me..."},
	{cmd: "login", args: "{key} --url {url}", noKey: true, want: []string{"Welcome admin"}},
	{cmd: "logout", want: []string{"removed"}},
	{cmd: "cvms list", args: "--api-token {key} --json", noKey: true, want: []string{`"total"`}, calls: "GET /apps..."},
	{cmd: "completion", args: "--fig", want: []string{"Fig spec"}},
	{cmd: "os-images", args: "--prod --page 1 --page-size 1 --json", want: []string{`"dstack-0.5.5"`, `"total": 1`}, calls: "GET /os-images"},
	{cmd: "self update", args: "--dry-run -y --package-manager npm --channel beta", want: []string{"phala@beta"}},
	{cmd: "nodes list", args: "--page 1 --page-size 1", want: []string{"local"}, calls: "GET /auth/me, GET /workspaces/default/nodes"},
	{cmd: "docker run", args: "-c docker-compose.yml --skip-env"},
}
