package guestagent

import (
	"context"
	"fmt"
	"path/filepath"

	"github.com/confidential-cloud/phala/guest-agent/boot"
	"github.com/confidential-cloud/phala/guest-agent/vm"
	"github.com/confidential-cloud/phala/guest-agent/volumes"
)

// openVolumes opens the app's verity volumes, before dockerd reads its store. It runs
// without any, too: what an earlier boot registered must go.
func (a *Agent) openVolumes(ctx context.Context, s *boot.State) error {
	vols, err := s.App.Volumes()
	if err != nil {
		return err
	}
	return volumes.Open(ctx, volumes.Config{
		Find:   func(i int) (string, error) { return vm.Disk("/", fmt.Sprintf("phala-vol%d", i)) },
		Verify: volumes.Veritysetup, DockerRoot: filepath.Join(a.cfg.DataDir, "docker"),
	}, vols)
}
