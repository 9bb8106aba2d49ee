package compat

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// push is what a pipeline does with a new image: sed on the compose file, and the
// same command each time.
func (u *user) push(t *testing.T, image string, st step) {
	t.Helper()
	yaml := strings.ReplaceAll("services:\n  web:\n    image: ${DOCKER_IMAGE}\n    ports:\n      - \"8080:80\"\n", "${DOCKER_IMAGE}", image)
	if err := os.WriteFile(filepath.Join(u.dir, "docker-compose.yml"), []byte(yaml), 0o600); err != nil {
		t.Fatal(err)
	}
	st.check(t, u)
}

// The documented job, at three pushes. The public CLI waits at updates by --cvm-id,
// not where it provisions: that is in its code.
func TestPipeline(t *testing.T) {
	if !long() {
		t.Skip("SKIPPED: PHALA_LONG=1 runs the pipeline")
	}
	modules := install(t)
	s := newStack(t, nil)
	u := newUser(t, s, modules, "ci")
	job := step{cmd: "deploy", args: "-c docker-compose.yml -n my-tee-app --wait", want: []string{"my-tee-app"}, calls: "POST /cvms/provision, POST /cvms", rest: "my-tee-app"}
	u.push(t, "web:one", job)
	first := s.runs(t, "my-tee-app", "web:one")
	for _, image := range []string{"web:two", "web:two"} {
		u.push(t, image, job)
		if d := s.runs(t, "my-tee-app", image); *d.VMUUID != *first.VMUUID || *d.AppID != *first.AppID {
			t.Errorf("%s: another CVM: %+v", image, d)
		}
	}
	update := step{cmd: "deploy", args: "--cvm-id my-tee-app -c docker-compose.yml --wait", want: []string{"CVM is ready", "updated"}, calls: "GET /cvms/my-tee-app, PATCH /cvms/my-tee-app, GET..."}
	u.push(t, "web:three", update)
	s.runs(t, "my-tee-app", "web:three") // it waited

	job.args, job.rest, job.want = "-c docker-compose.yml -n broken-app --wait", "broken-app", nil
	u.push(t, brokenImage, job)
	clock, err := filepath.Abs("clock.cjs")
	if err != nil {
		t.Fatal(err)
	}
	env := slices.IndexFunc(u.env, func(e string) bool { return strings.HasPrefix(e, "NODE_OPTIONS=") })
	node := u.env[env]
	u.env[env] += " --require=" + clock
	update.args, update.exit, update.want, update.calls = "--cvm-id broken-app -c docker-compose.yml --wait", 1, []string{"Timeout waiting for CVM"}, "GET /cvms/broken-app, PATCH /cvms/broken-app, GET..."
	u.push(t, brokenImage+"-again", update)

	u.env[env] = node
	job.args, job.rest, job.want = "-c docker-compose.yml -n dev-app --dev-os --ssh-pubkey id.pub", "dev-app", []string{"dev-app"}
	u.push(t, "web:dev", job)
	if d := s.runs(t, "dev-app", "web:dev"); d.OS == nil || d.OS.IsDev == nil || !*d.OS.IsDev {
		t.Errorf("--dev-os runs %+v", d.OS)
	}
}
