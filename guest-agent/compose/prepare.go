package compose

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/confidential-cloud/phala/appcompose"
	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/guest-agent/guestapi"
	"github.com/confidential-cloud/phala/guest-agent/secrets"
)

// Bounds of a preparation.
const (
	maxPrepareImages = 64
	prepareTimeout   = 30 * time.Minute
)

// Prepare pulls the images of a compose file that is to run next, and changes
// nothing that runs: an image that is here is left alone, tags included. Nobody has
// approved the file yet and the host may have written it, so Compose reads it
// without a single value of the environment; images whose name depends on one are
// reported and left to the switch.
func (e *Engine) Prepare(ctx context.Context, doc *appcompose.Document, l *secrets.Login, tell Progress) error {
	if !e.preparing.TryLock() {
		return cvm.Errorf(cvm.Conflict, "another preparation is running").WithReason("preparing").WithFix("wait until it ends")
	}
	defer e.preparing.Unlock()
	ctx, cancel := context.WithTimeout(ctx, prepareTimeout)
	defer cancel()
	m, err := e.unresolved(ctx, doc.DockerComposeFile)
	if err != nil {
		return err
	}
	if err := e.ownNetworks(m); err != nil { // now, not after the switch
		return err
	}
	var plain []wanted
	for _, w := range m.images() {
		if strings.ContainsRune(w.ref+w.platform, '$') {
			tell(guestapi.PullProgress{Image: w.ref, State: "depends-on-environment"})
			continue
		}
		plain = append(plain, w)
	}
	if len(plain) > maxPrepareImages {
		return cvm.Errorf(cvm.Invalid, "the compose file names %d images, the limit is %d", len(plain), maxPrepareImages).WithReason("prepare-refused")
	}
	need, err := e.missing(ctx, plain, true)
	if err != nil {
		return err
	}
	for _, w := range need {
		if err := e.space(); err != nil {
			return err
		}
		if err := e.pull(ctx, w, l, tell); err != nil {
			return err
		}
	}
	return nil
}

// unresolved has Compose read the file in an empty directory. Its messages are not
// passed on: they could quote files that the compose file points to.
func (e *Engine) unresolved(ctx context.Context, text string) (*model, error) {
	dir, err := os.MkdirTemp(e.cfg.WorkDir, "prepare-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	file := filepath.Join(dir, "compose.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	m, err := e.resolve(ctx, nil, dir, file, "--no-interpolate")
	if err != nil {
		return nil, cvm.Errorf(cvm.Invalid, "docker compose config refuses the new compose file").WithReason("prepare-refused").
			WithFix("run `docker compose config` on it; the guest does not repeat the message")
	}
	return m, nil
}
