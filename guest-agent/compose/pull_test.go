package compose

import (
	"context"
	"io"
	"log"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/docker/docker/api/types/image"
	"github.com/google/go-containerregistry/pkg/name"
	gcr "github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/confidential-cloud/phala/appcompose"
	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/guest-agent/guestapi"
)

// TestPrepareWithARealEngine: what is missing is pulled with progress; what is here
// stays, its tag with it, though the registry has moved it; a missing image fails.
func TestPrepareWithARealEngine(t *testing.T) {
	e := realCompose(t)
	live, err := New(Config{Log: e.cfg.Log, Compose: e.cfg.Compose, Sock: "/var/run/docker.sock", Project: "preparetest", WorkDir: e.cfg.WorkDir, DataDir: e.cfg.DataDir})
	if err != nil {
		t.Fatal(err)
	}
	if err := live.ping(t.Context()); err != nil {
		t.Skipf("SKIPPED: no docker engine: %v", err)
	}
	s := httptest.NewServer(gcr.New(gcr.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(s.Close)
	ref := strings.TrimPrefix(s.URL, "http://") + "/prepare/app:1"
	push := func() {
		img, err := random.Image(1<<20, 2)
		if err != nil {
			t.Fatal(err)
		}
		r, err := name.ParseReference(ref, name.Insecure)
		if err == nil {
			err = remote.Write(r, img)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	push()
	t.Cleanup(func() {
		_, _ = live.cli.ImageRemove(context.Background(), ref, image.RemoveOptions{Force: true})
	})
	prepare := func(text string) (lines []guestapi.PullProgress, err error) {
		err = live.Prepare(t.Context(), &appcompose.Document{DockerComposeFile: text}, nil, func(p guestapi.PullProgress) { lines = append(lines, p) })
		return lines, err
	}
	text := "services:\n  a: {image: '" + ref + "'}\n  b: {image: '${SECRET}'}\n"
	lines, err := prepare(text)
	if err != nil || len(lines) < 2 || lines[0].State != "depends-on-environment" {
		t.Fatalf("%+v %v", lines, err)
	}
	if end := lines[len(lines)-1]; end.State != "done" || end.Image != ref {
		t.Errorf("%+v", lines)
	}
	before, err := live.cli.ImageInspect(t.Context(), ref)
	if err != nil {
		t.Fatal(err)
	}
	push()
	if lines, err = prepare(text); err != nil || len(lines) != 1 {
		t.Errorf("the second time: %+v %v", lines, err)
	}
	if after, err := live.cli.ImageInspect(t.Context(), ref); err != nil || after.ID != before.ID {
		t.Errorf("the tag moved: %v", err)
	}
	if _, err = prepare("services:\n  a: {image: '" + strings.Replace(ref, ":1", ":2", 1) + "'}\n"); cvm.ReasonOf(err) != ReasonPull {
		t.Errorf("an image that does not exist: %v", err)
	}
	if _, err = prepare("services: {a: {image: x"); cvm.ReasonOf(err) != "prepare-refused" {
		t.Errorf("a broken file: %v", err)
	}
}
