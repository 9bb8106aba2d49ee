package vmm

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"log"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	gcr "github.com/google/go-containerregistry/pkg/registry"

	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/vmm/dry"
	"github.com/confidential-cloud/phala/vmm/image"
	"github.com/confidential-cloud/phala/vmm/image/oci"
	"github.com/confidential-cloud/phala/vmm/vmmapi"
)

// pushImage stores a small image in a registry of the test.
func pushImage(t *testing.T, host, version string) oci.Pushed {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "image")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	files := map[string][]byte{"rootfs.tar": []byte("root of " + version), image.MetadataFile: []byte(`{"rootfs":"rootfs.tar","version":"` + version + `","driver":"container"}`)}
	var sums bytes.Buffer
	for n, b := range files {
		fmt.Fprintf(&sums, "%x  %s\n", sha256.Sum256(b), n)
	}
	files[image.SumsFile], files[image.DigestFile] = sums.Bytes(), fmt.Appendf(nil, "%x\n", sha256.Sum256(sums.Bytes()))
	for n, b := range files {
		if err := os.WriteFile(filepath.Join(dir, n), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	p, err := oci.Push(t.Context(), dir, oci.PushConfig{Ref: host + "/os/phala:" + version})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestImagesOverTheAPI(t *testing.T) {
	reg := httptest.NewServer(gcr.New(gcr.Logger(log.New(io.Discard, "", 0))))
	defer reg.Close()
	host := strings.TrimPrefix(reg.URL, "http://")
	n := newNode(t, dry.New(dry.Config{}), func(c *Config) {
		c.DefaultImage, c.ImageRegistry.KeepFreeMiB = "phala-3", 1
	})
	ctx := t.Context()
	if p, err := n.c.Pull(ctx, vmmapi.PullRequest{Ref: host + "/os/phala:1"}); err != nil {
		t.Fatal(err)
	} else if p, err = n.vmm.puller.Wait(ctx, p.ID); err != nil || p.Error == nil || p.Error.Reason != "image-unpinned" {
		t.Fatalf("%+v %v", p, err)
	}
	for _, v := range []string{"1", "2", "3"} {
		pushed := pushImage(t, host, v)
		p, err := n.c.Pull(ctx, vmmapi.PullRequest{Ref: pushed.Ref, Hash: pushed.Hash})
		if err != nil {
			t.Fatal(err)
		}
		if p, err = n.vmm.puller.Wait(ctx, p.ID); err != nil || p.Phase != vmmapi.PullDone || p.Name != "phala-"+v {
			t.Fatalf("%+v %v", p, err)
		}
	}
	images, err := n.c.Images(ctx)
	if pulls, perr := n.c.Pulls(ctx); err != nil || perr != nil || len(images) != 3 || len(pulls) != 4 || pulls[0].Name != "phala-3" {
		t.Fatalf("%+v %+v %v %v", images, pulls, err, perr)
	}
	s := spec()
	s.Image = "phala-2"
	if _, err := n.c.Put(ctx, s); err != nil {
		t.Fatal(err)
	}
	for _, used := range []string{"phala-2", "phala-3"} { // a VM's, and the default
		if err := n.c.DeleteImage(ctx, used); cvm.ReasonOf(err) != "image-used" {
			t.Errorf("%s: %v", used, err)
		}
	}
	if err := n.c.DeleteImage(ctx, "phala-9"); cvm.CodeOf(err) != cvm.NotFound {
		t.Error(err)
	}
	r, err := n.c.CollectImages(ctx, vmmapi.GCRequest{DryRun: true})
	if err != nil || fmt.Sprint(r.Removed) != "[phala-1]" || !r.DryRun {
		t.Fatalf("%+v %v", r, err)
	}
	if r, err = n.c.CollectImages(ctx, vmmapi.GCRequest{}); err != nil || fmt.Sprint(r.Removed) != "[phala-1]" {
		t.Fatalf("%+v %v", r, err)
	}
	if images, err = n.c.Images(ctx); err != nil || len(images) != 2 {
		t.Fatalf("%+v %v", images, err)
	}
	// A VM without an image means the default, or whichever there is.
	n.vmm.mu.Lock()
	n.vmm.vms[vmID].rec.VM.Spec.Image = ""
	_, byDefault := n.vmm.users()["phala-3"]
	n.vmm.cfg.DefaultImage = ""
	whichever := len(n.vmm.users())
	n.vmm.cfg.DefaultImage = "phala-3"
	n.vmm.mu.Unlock()
	if !byDefault || whichever != 2 {
		t.Errorf("%v %d", byDefault, whichever)
	}
}

// TestImageKeysMustBeReadable: a key that is missing does not mean that none is asked for.
func TestImageKeysMustBeReadable(t *testing.T) {
	for _, r := range []ImageRegistry{{Keys: []string{"/does/not/exist.pub"}}, {Registry: "r.example", User: "me", PasswordFile: "/does/not/exist"}} {
		if _, err := r.puller(t.TempDir(), nil); cvm.CodeOf(err) != cvm.Invalid {
			t.Errorf("%+v: %v", r, err)
		}
	}
	for _, r := range []ImageRegistry{{Keys: []string{"image.pub"}}, {User: "me"}, {PasswordFile: "/x"}, {User: "me", PasswordFile: "/x"}, {Registry: "r.example"}, {MaxMiB: -1}, {KeepFreeMiB: -1}} {
		if len(r.validate()) == 0 {
			t.Errorf("%+v is accepted", r)
		}
	}
}
