package compat

// The verdicts.
const (
	works   = "works"
	local   = "local"             // asks no cloud: it drives programs or files of this machine
	differs = "differs"           // another answer than the public cloud's, on purpose
	chain   = "chain only"        // means something only where apps live on a chain
	pending = "not shown to work" // no step shows it yet
)

// command is one leaf command of the public CLI.
type command struct{ name, verdict, reason string }

const (
	onThisBox = "no request to the cloud; run with stand-ins for the programs that it drives"
	noChain   = "this stack has no chain: the test shows the refusal; on a chain it is not run here"
	nextWork  = "its endpoint is not in this cloud yet"
)

// What the API has by now. The steps of both passed against it (PHALA_PENDING=1 runs
// them); they are set to true in the commit that has the endpoints.
const (
	haveChanges = false // PATCH /cvms/{id}, resources, replicas, user_config, device-allowlist
	haveKeys    = false // /user/ssh-keys
)

// once is a command that works as soon as its endpoints are there.
func once(there bool, name string) command {
	switch {
	case there:
		return command{name, works, ""}
	case name == "deploy":
		return command{name, "partly", "creating works; for updating (`--cvm-id`) " + nextWork}
	}
	return command{name, pending, nextWork}
}

// commands is the whole surface of phala 1.1.18.
var commands = []command{
	once(haveChanges, "deploy"),
	{"apps", works, ""},
	{"instances ls", works, ""},
	once(haveChanges, "instances add"),
	{"instances rm", works, ""},
	{"instance-types", works, ""},
	{"link", works, ""},
	{"ssh", works, ""},
	{"cp", works, ""},
	{"ps", works, ""},
	{"logs", differs, "`--cvm-stdout` and `--cvm-stderr` answer 404: nodes keep one console, read it with `--serial`"},
	once(haveChanges, "runtime-config"),
	{"login", works, ""},
	{"logout", works, ""},
	{"profiles", works, ""},
	{"profiles use", works, ""},
	{"profiles rename", works, ""},
	{"profiles delete", works, ""},
	{"switch", works, ""},
	{"api", works, ""},
	{"status", works, ""},
	{"whoami", works, ""},
	{"completion", works, ""},
	{"os-images", works, ""},
	{"help", works, ""},
	{"self update", local, "with `--dry-run`; " + onThisBox},
	{"auth login", works, ""},
	{"auth logout", works, ""},
	{"auth status", works, ""},
	{"config get", works, ""},
	{"config list", works, ""},
	{"config set", works, ""},
	{"cvms attestation", works, ""},
	{"cvms create", pending, "deprecated for `deploy`: /cvms/from_cvm_configuration is not in this cloud"},
	{"cvms delete", works, ""},
	once(haveChanges, "cvms device-allowlist"),
	{"cvms get", works, ""},
	{"cvms list", works, ""},
	{"cvms list-nodes", works, ""},
	{"cvms logs", works, ""},
	once(haveChanges, "cvms replicate"),
	once(haveChanges, "cvms resize"),
	{"cvms restart", works, ""},
	{"cvms serial-logs", works, ""},
	{"cvms start", works, ""},
	{"cvms stop", works, ""},
	{"cvms upgrade", pending, "deprecated for `deploy`: PUT /cvms/{id}/compose is not in this cloud"},
	{"envs encrypt", works, ""},
	{"envs update", works, ""},
	once(haveKeys, "ssh-keys list"),
	once(haveKeys, "ssh-keys add"),
	once(haveKeys, "ssh-keys remove"),
	once(haveKeys, "ssh-keys import-github"),
	{"docker login", local, onThisBox},
	{"docker build", local, onThisBox},
	{"docker push", local, onThisBox},
	{"docker generate", local, onThisBox},
	{"docker run", local, onThisBox},
	{"kms list", works, ""},
	{"kms ethereum", chain, noChain},
	{"kms base", chain, noChain},
	{"nodes list", works, ""},
	{"simulator start", local, "only its help is run: it downloads a program; our own CLI brings a simulator"},
	{"simulator stop", local, onThisBox},
	{"allow-devices list", chain, noChain},
	{"allow-devices add", chain, noChain},
	{"allow-devices remove", chain, noChain},
	{"allow-devices allow-any", chain, noChain},
	{"allow-devices disallow-any", chain, noChain},
	{"allow-devices toggle-allow-any", chain, noChain},
}

// lifecycle is one app's life, in order.
var lifecycle = []step{
	{cmd: "deploy", args: "-n my-app -c docker-compose.yml -e GREETING=hello --json", want: []string{"Provisioning CVM my-app", `"success": true`},
		calls: "POST /cvms/provision, POST /cvms", save: "uuid=vm_uuid app=app_id", rest: "my-app", everyday: true},
	{cmd: "deploy", args: "-n my-app -c docker-compose.yml", exit: 1, want: []string{"exists"}, calls: "POST /cvms/provision"},
	{cmd: "apps", want: []string{"my-app", "running", "{app}"}, calls: "GET /apps, POST /status/batch"},
	{cmd: "apps", args: "--search nothing-of-this --json", want: []string{`"total": 0`}, calls: "GET /apps"},
	{cmd: "cvms list", want: []string{"my-app", "running", "{app}"}, calls: "GET /apps, POST /status/batch", everyday: true},
	{cmd: "cvms list", args: "--status stopped --json", want: []string{`"total": 0`}, calls: "GET /apps"},
	{cmd: "cvms get", args: "my-app", want: []string{"my-app", "running", "app_{app}", "dstack-0.5.5"}, calls: "GET /cvms/my-app", everyday: true},
	{cmd: "cvms get", args: "{uuid} --json", want: []string{`"vm_uuid": "{uuid}"`, `"encrypted_env_pubkey"`}, calls: "GET /cvms/{uuid32}"},
	{cmd: "cvms get", args: "{app} --json", want: []string{`"vm_uuid": "{uuid}"`}, calls: "GET /cvms/app_{app}"},
	{cmd: "cvms get", args: "my-app --json --api-version 2025-10-28", want: []string{`"vm_uuid": "{uuid}"`, `"syslog_endpoint": "http`, `"memory": 2048`}, calls: "GET /cvms/my-app"},
	{cmd: "cvms get", args: "nothing-here", exit: 1, want: []string{"CVM not found"}, calls: "GET /cvms/nothing-here"},
	{cmd: "instances ls", args: "--app-id {app}", want: []string{"{uuid}", "running"}, calls: "GET /apps/{app}/cvms, POST /status/batch"},
	{cmd: "ps", args: "my-app", want: []string{"web", "nginx:1.27", "running"}, calls: "GET /cvms/my-app/composition", everyday: true},
	{cmd: "logs", args: "web --cvm-id my-app", want: []string{"hello from web"}, calls: "GET /cvms/my-app/composition", everyday: true},
	{cmd: "logs", args: "--stderr --cvm-id my-app", want: []string{"hello from web", "second line"}, calls: "GET /cvms/my-app, GET /cvms/my-app/composition"},
	{cmd: "logs", args: "--serial -n 5 --cvm-id my-app", want: []string{"dry guest of my-app"}, calls: "GET /cvms/my-app", everyday: true},
	{cmd: "logs", args: "--cvm-stdout --cvm-id my-app", exit: 1, want: []string{"404"}, calls: "GET /cvms/my-app"},
	{cmd: "cvms logs", args: "my-app", want: []string{"hello from web", "second line"}, calls: "GET /cvms/my-app/composition"},
	{cmd: "cvms serial-logs", args: "my-app -n 5", want: []string{"dry guest of my-app"}, calls: "GET /cvms/my-app"},
	{cmd: "cvms attestation", args: "my-app", want: []string{"Online", "compat test root", "Rtmr0"}, calls: "GET /cvms/my-app, GET /cvms/app_{app}/attestation"},
	{cmd: "ssh", args: "my-app --dry-run", want: []string{"root@{app}-22.apps.test"}, calls: "GET /cvms/my-app"},
	{cmd: "cp", args: "id.pub my-app:/root/x --dry-run", want: []string{"id.pub root@{app}-22.apps.test:/root/x"}, calls: "GET /cvms/my-app"},
	{cmd: "runtime-config", args: "my-app", want: []string{"SSH Keys"}, calls: "GET /cvms/my-app/user_config"},
	{cmd: "envs encrypt", args: "my-app -e GREETING=two", calls: "GET /cvms/my-app"},
	{cmd: "envs update", args: "my-app -e GREETING=two", want: []string{"correlation_id"}, calls: "GET /cvms/my-app, PATCH /cvms/{cvm}/envs", rest: "my-app", everyday: true},
	{cmd: "cvms device-allowlist", args: "my-app", calls: "GET /cvms/my-app, GET /apps/{app}/device-allowlist"},
	{cmd: "allow-devices list", args: "my-app", exit: 1, calls: "GET /cvms/my-app..."},
	{cmd: "allow-devices add", args: "my-app local", exit: 1, calls: "GET /cvms/my-app..."},
	{cmd: "allow-devices remove", args: "my-app local", exit: 1, calls: "GET /cvms/my-app..."},
	{cmd: "allow-devices allow-any", args: "my-app --enable", exit: 1, calls: "GET /cvms/my-app..."},
	{cmd: "allow-devices disallow-any", args: "my-app", exit: 1, calls: "GET /cvms/my-app..."},
	{cmd: "allow-devices toggle-allow-any", args: "my-app", exit: 1, calls: "GET /cvms/my-app..."},
	{cmd: "cvms stop", args: "my-app", want: []string{"being stopped"}, calls: "POST /cvms/my-app/stop", rest: "my-app", everyday: true},
	{cmd: "ps", args: "my-app", want: []string{"the CVM is stopped"}, calls: "GET /cvms/my-app/composition"},
	{cmd: "cvms start", args: "my-app", want: []string{"being started"}, calls: "POST /cvms/my-app/start", rest: "my-app"},
	{cmd: "cvms restart", args: "my-app", want: []string{"being restarted"}, calls: "GET /cvms/my-app, POST /cvms/my-app/restart", rest: "my-app"},
	{cmd: "cvms resize", args: "my-app -v 2 -m 4096 -d 50 -r true -y", want: []string{"2048 MB -> 4096 MB"}, calls: "GET /cvms/my-app, PATCH /cvms/app_{app}/resources", rest: "my-app"},
	{cmd: "deploy", args: "--cvm-id my-app -c docker-compose.yml -e GREETING=three --wait", calls: "GET /cvms/my-app, PATCH /cvms/my-app, GET /cvms/my-app...", rest: "my-app", update: true},
	{cmd: "cvms upgrade", args: "my-app -c docker-compose.yml", calls: "GET /cvms/my-app...", rest: "my-app"},
	{cmd: "cvms replicate", args: "my-app --json", calls: "GET /cvms/my-app, POST /cvms/{uuid}/replicas", save: "replica=vm_uuid", rest: "{replica}"},
	{cmd: "instances add", args: "--app-id {app} --json", calls: "POST /apps/{app}/instances", save: "instance=vm_uuid", rest: "{instance}"},
	{cmd: "cvms create", args: "-n legacy-app -c docker-compose.yml --image dstack-0.5.5 --skip-env", calls: "GET /teepods/available, POST /cvms/pubkey/from_cvm_configuration, POST /cvms/from_cvm_configuration"},
	{cmd: "deploy", args: "-n second-app -c docker-compose.yml --no-public-logs -t tdx.medium --json", calls: "POST /cvms/provision, POST /cvms", save: "second=vm_uuid", rest: "second-app"},
	{cmd: "instances rm", args: "{second} -y", calls: "DELETE /cvms/{second32}"},
	{cmd: "link", args: "my-app", want: []string{"linked successfully", "{app}"}, calls: "GET /auth/me, GET /cvms/my-app"},
	{cmd: "cvms delete", args: "my-app -y", want: []string{"deleted"}, calls: "GET /cvms/my-app, DELETE /cvms/my-app", everyday: true},
}

// around is what is not about one CVM.
var around = []step{
	{cmd: "status", noKey: true, want: []string{"Not"}},
	{cmd: "cvms list", noKey: true, exit: 1, calls: "GET /apps"},
	{cmd: "login", args: "not-a-key", noKey: true, exit: 1, want: []string{"Invalid"}, calls: "GET /auth/me"},
	{cmd: "auth login", args: "{key}", noKey: true, want: []string{"default"}, calls: "GET /auth/me"},
	{cmd: "auth status", noKey: true, want: []string{"Logged in as: admin"}, calls: "GET /auth/me"},
	{cmd: "auth logout", noKey: true, want: []string{"removed"}},
	{cmd: "login", args: "{key}", noKey: true, want: []string{"Welcome admin", "default"}, calls: "GET /auth/me", everyday: true},
	{cmd: "status", noKey: true, want: []string{"Logged in as: admin", "Current Workspace: default"}, calls: "GET /auth/me"},
	{cmd: "whoami", args: "--json", noKey: true, want: []string{`"username": "admin"`, `"workspace": "default"`}, calls: "GET /auth/me"},
	{cmd: "profiles", want: []string{"default", "admin"}},
	{cmd: "profiles rename", args: "default other", want: []string{"Renamed"}},
	{cmd: "profiles use", args: "other", want: []string{"other"}},
	{cmd: "switch", args: "other", want: []string{"other"}},
	{cmd: "nodes list", noKey: true, want: []string{"local", "us-test"}, calls: "GET /auth/me, GET /workspaces/default/nodes", everyday: true},
	{cmd: "profiles delete", args: "other", want: []string{"Deleted"}},
	{cmd: "logout", want: []string{"removed"}},
	{cmd: "config set", args: "colour blue", want: []string{"successfully"}},
	{cmd: "config get", args: "colour", want: []string{"blue"}},
	{cmd: "config list", want: []string{"colour"}},
	{cmd: "completion", args: "--shell bash", want: []string{"_phala_completions"}},
	{cmd: "help", want: []string{"envs"}},
	{cmd: "help", args: "envs", want: []string{"PHALA_CLOUD_API_PREFIX"}},
	{cmd: "self update", args: "--dry-run", want: []string{"Command:"}},
	{cmd: "cvms list-nodes", want: []string{"local", "dstack-dev-0.5.5", "kms-test"}, calls: "GET /teepods/available", everyday: true},
	{cmd: "instance-types", want: []string{"Family: cpu", "tdx.small"}, calls: "GET /instance-types", everyday: true},
	{cmd: "instance-types", args: "cpu", want: []string{"tdx.xlarge", "Total: 4"}, calls: "GET /instance-types/cpu"},
	{cmd: "instance-types", args: "none", exit: 1, calls: "GET /instance-types/none"},
	{cmd: "os-images", args: "--all", want: []string{"dstack-0.5.5", "Total: 2"}, calls: "GET /os-images", everyday: true},
	{cmd: "os-images", args: "--dev --json", want: []string{`"dstack-dev-0.5.5"`, `"total": 1`}, calls: "GET /os-images"},
	{cmd: "kms list", want: []string{"No on-chain KMS"}, calls: "GET /kms"},
	{cmd: "kms base", exit: 1, want: []string{"no KMS contract"}, calls: "GET /kms/on-chain/base"},
	{cmd: "kms ethereum", exit: 1, want: []string{"no KMS contract"}, calls: "GET /kms/on-chain/ethereum"},
	{cmd: "api", args: "/instance-types -q .result[0].name", want: []string{"cpu"}, calls: "GET /instance-types", everyday: true},
	{cmd: "api", args: "/cvms/nothing-here", exit: 1, want: []string{"ERR-03-001"}, calls: "GET /cvms/nothing-here"},
	{cmd: "ssh-keys add", args: "--key-file id.pub --name mine", want: []string{"mine"}, calls: "POST /user/ssh-keys"},
	{cmd: "ssh-keys list", want: []string{"mine"}, calls: "GET /user/ssh-keys"},
	{cmd: "ssh-keys remove", args: "nothing", exit: 1, calls: "DELETE /user/ssh-keys/nothing"},
	{cmd: "ssh-keys import-github", args: "somebody", exit: 1, calls: "POST /user/ssh-keys/github-profile"},
	{cmd: "docker login", args: "-u me -p secret -r registry.test"},
	{cmd: "docker build", args: "-i hello -t v1 -f docker-compose.yml"},
	{cmd: "docker push", args: "-i me/hello:v1"},
	{cmd: "docker generate", args: "-i me/hello:v1 -e .env -o out.yml"},
	{cmd: "docker run", args: "-c docker-compose.yml -e .env"},
	{cmd: "simulator start", args: "--help", want: []string{"Usage: phala simulator start"}},
	{cmd: "simulator stop"},
	{cmd: "link", args: "nothing-here", exit: 1, want: []string{"not found"}, calls: "GET /auth/me, GET /cvms/nothing-here"},
}
