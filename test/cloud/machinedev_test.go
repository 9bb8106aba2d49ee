package cloud

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/confidential-cloud/phala/governance/ethereum"
	"github.com/confidential-cloud/phala/vmm/image"
	"github.com/confidential-cloud/phala/vmm/vmmapi"
)

// devImage is the development image beside the cloud's own.
func devImage(t *testing.T) vmmapi.Image {
	t.Helper()
	all, err := theVMM(t).Images(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Dir(theCloud.Image().Dir)
	for _, im := range all {
		if i, err := image.Open(filepath.Join(dir, im.Name)); err == nil && im.IsDev && i.Meta.Driver == theCfg.Driver {
			return im
		}
	}
	t.Skipf("SKIPPED: no development image in %s (os/build.sh prod dev)", dir)
	return vmmapi.Image{}
}

// TestMachineDev: a development image, where the chain allows it, lets in who has the
// key of the encrypted environment, through the gateway, and nobody else.
func TestMachineDev(t *testing.T) {
	virtual(t)
	dev := devImage(t)
	mine, another := sshKey(t), sshKey(t)
	push(t, "phala-tests/kv", "1", kvImage(t))
	change(t, ethereum.AllowOSImage(dev.Hash))
	d := deploy(t, oneService(t), "dev-app", "--image", dev.Name, "--ssh-pubkey", mine+".pub")
	getOK(t, appURL(d.AppID, 9000)+"health")
	if boots := bootsOf(t, d.VMUUID); boots[len(boots)-1].Image != dev.Name {
		t.Fatalf("it runs image %s", boots[len(boots)-1].Image)
	}
	ssh := func(key string, command ...string) result {
		return phala(t, append([]string{"ssh", "dev-app", "--", "-i", key, "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes"}, command...)...)
	}
	var in result
	eventually(t, "sshd answers", 30*time.Second, func() error {
		if in = ssh(mine, "cat", "/etc/os-release"); in.code != 0 {
			return fmt.Errorf("exit %d: %s", in.code, in.err)
		}
		return nil
	})
	in.says(t, 0, "VARIANT_ID=dev")
	if r := ssh(another, "true"); r.code != 255 || !strings.Contains(r.err, "Permission denied") {
		t.Errorf("another key: exit %d: %s", r.code, r.err)
	}
	copied := filepath.Join(t.TempDir(), "hostname")
	must(t, "cp", "-i", mine, "dev-app:/etc/hostname", copied)
	if b, err := os.ReadFile(copied); err != nil || len(b) == 0 {
		t.Errorf("phala cp: %q %v", b, err)
	}
	remove(t, "dev-app")
	change(t, ethereum.DenyOSImage(dev.Hash))
}

// sshKey makes a pair of keys; the public one has .pub behind its name.
func sshKey(t *testing.T) string {
	t.Helper()
	key := filepath.Join(t.TempDir(), "key")
	mustRun(t, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key)
	return key
}
