package profile

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/confidential-cloud/phala/cvm"
)

// maxJump bounds how far the cloud may push a counter: one that says 2^64-1 would
// make every later environment impossible.
const maxJump = 1 << 20

// State is state of deploys that must outlive one command.
type State struct {
	// Counters holds the last counter an environment was signed with, by app id (T11).
	Counters map[string]uint64 `json:"env_counters"`
	// Pending holds app contracts that were registered and not yet committed, by
	// API prefix and CVM name: a deploy that was interrupted continues with them.
	Pending map[string]Pending `json:"pending"`
}

// Pending is a registered app without a CVM.
type Pending struct {
	AppID       string `json:"app_id"`
	ComposeHash string `json:"compose_hash"`
	Owner       string `json:"owner"`
}

// Update changes the state file under a lock.
func Update(dir string, fn func(*State) error) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	lock, err := os.OpenFile(filepath.Join(dir, "deploys.lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("locking the deploy state: %w", err)
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return fmt.Errorf("locking the deploy state: %w", err)
	}
	path := filepath.Join(dir, "deploys.json")
	s := &State{}
	b, err := os.ReadFile(path)
	if err == nil {
		// A damaged file is not an empty one: counters would go back.
		if err := json.Unmarshal(b, s); err != nil {
			return cvm.Errorf(cvm.Invalid, "%s is damaged: %v", path, err).WithFix("repair it, or move it away: the next counters then come from the cloud")
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("reading the deploy state: %w", err)
	}
	if s.Counters == nil {
		s.Counters = map[string]uint64{}
	}
	if s.Pending == nil {
		s.Pending = map[string]Pending{}
	}
	if err := fn(s); err != nil {
		return err
	}
	if b, err = json.MarshalIndent(s, "", "  "); err != nil {
		return err
	}
	return WriteFile(path, append(b, '\n'))
}

// NextCounter takes the next counter for an app's environment and stores it before
// it is used: above every counter this machine signed and above the cloud's last.
func NextCounter(dir string, app cvm.AppID, cloud uint64) (next uint64, err error) {
	err = Update(dir, func(s *State) error {
		local := s.Counters[app.String()]
		if cloud > local+maxJump {
			return cvm.Errorf(cvm.Denied, "the cloud says that the environment's counter is %d; this machine signed %d last, and so large a step is not believed", cloud, local).
				WithReason("env-counter-implausible").WithFix("check the app's newest allow leaf in the ledger (phala verify), then set the counter in deploys.json")
		}
		next = max(local, cloud) + 1
		s.Counters[app.String()] = next
		return nil
	})
	return next, err
}
