package vm

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/confidential-cloud/phala/cvm"
)

// containersEnd bounds the wait for processes that were killed.
const containersEnd = 10 * time.Second

// EndContainers kills every process of a cgroup (v2) and of those below it, and waits
// until none is left. An engine ends its containers when it stops; one that had to be
// killed leaves them running, with the data disk mounted. A cgroup that does not exist
// has no processes.
func EndContainers(ctx context.Context, cgroup string) error {
	f, err := os.OpenFile(filepath.Join(cgroup, "cgroup.kill"), os.O_WRONLY, 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err == nil {
		_, err = f.WriteString("1")
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		return cvm.Errorf(cvm.Internal, "containers that are left: %w", err).WithReason(ReasonSystem)
	}
	ctx, cancel := context.WithTimeout(ctx, containersEnd)
	defer cancel()
	err = wait(ctx, 20*time.Millisecond, func() bool {
		b, err := os.ReadFile(filepath.Join(cgroup, "cgroup.events"))
		return errors.Is(err, os.ErrNotExist) || err == nil && strings.Contains("\n"+string(b), "\npopulated 0\n")
	})
	if err != nil {
		return cvm.Errorf(cvm.Internal, "processes of containers do not end: %w", err).WithReason(ReasonSystem)
	}
	return nil
}
