package devcloud

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// StateVersion is the layout of the state directory this program writes. A newer
// program opens an older state (migrations go into openState); an older program
// refuses a newer one instead of guessing.
const StateVersion = 1

// State is the directory that holds everything a one-machine cloud remembers.
type State struct {
	Dir  string
	lock *os.File
}

// DefaultStateDir is $PHALA_STATE, else $XDG_STATE_HOME/phala-devcloud, else
// ~/.local/state/phala-devcloud.
func DefaultStateDir() (string, error) {
	if d := os.Getenv("PHALA_STATE"); d != "" {
		return filepath.Abs(d)
	}
	base := os.Getenv("XDG_STATE_HOME")
	if base == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return "", fmt.Errorf("finding the state directory: %w (set PHALA_STATE)", err)
		}
		base = filepath.Join(home, ".local", "state")
	}
	return filepath.Join(base, "phala-devcloud"), nil
}

// RunningError says that another process holds the state.
type RunningError struct {
	Dir string
	PID int
}

func (e *RunningError) Error() string {
	return fmt.Sprintf("a cloud is already running on %s (process %d); use it, or stop it with `make down`", e.Dir, e.PID)
}

type stateFile struct {
	Version int `json:"version"`
}

// OpenState takes the state directory for this process, making it at first use.
func OpenState(dir string) (*State, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("making the state directory: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("opening the state's lock: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		return nil, &RunningError{Dir: dir, PID: lockPID(dir)}
	}
	s := &State{Dir: dir, lock: f}
	if err := s.check(); err != nil {
		s.Close()
		return nil, err
	}
	if err := f.Truncate(0); err == nil {
		_, _ = f.WriteAt([]byte(strconv.Itoa(os.Getpid())), 0)
	}
	return s, nil
}

func (s *State) check() error {
	path := s.Path("state.json")
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return s.WriteJSON("state.json", stateFile{Version: StateVersion})
	} else if err != nil {
		return fmt.Errorf("reading the state's version: %w", err)
	}
	var f stateFile
	if err := json.Unmarshal(b, &f); err != nil || f.Version < 1 {
		return fmt.Errorf("%s is damaged: it should hold {\"version\":%d}", path, StateVersion)
	}
	if f.Version > StateVersion {
		return fmt.Errorf("the state in %s was written by a newer program (version %d, this one knows %d): use that one, or another directory with PHALA_STATE", s.Dir, f.Version, StateVersion)
	}
	return nil
}

// Path joins names below the state directory.
func (s *State) Path(names ...string) string {
	return filepath.Join(append([]string{s.Dir}, names...)...)
}

// WriteJSON replaces a file atomically, mode 0600.
func (s *State) WriteJSON(name string, v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	return writeFile(s.Path(name), append(b, '\n'))
}

// ReadJSON reads a file written by WriteJSON; ok is false when there is none.
func (s *State) ReadJSON(name string, v any) (ok bool, err error) {
	b, err := os.ReadFile(s.Path(name))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	} else if err != nil {
		return false, err
	}
	if err := json.Unmarshal(b, v); err != nil {
		return false, fmt.Errorf("%s: %w", s.Path(name), err)
	}
	return true, nil
}

// Close gives the directory back.
func (s *State) Close() { s.lock.Close() }

func writeFile(path string, b []byte) error {
	tmp := path + ".new"
	if err := os.WriteFile(tmp, b, 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}

func lockPID(dir string) int {
	b, _ := os.ReadFile(filepath.Join(dir, "lock"))
	pid, _ := strconv.Atoi(strings.TrimSpace(string(b)))
	return pid
}

// Running returns the process that holds dir, or 0.
func Running(dir string) (int, error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	} else if err != nil {
		return 0, err
	}
	defer f.Close()
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err == nil {
		return 0, nil
	}
	return lockPID(dir), nil
}

// defaultRunDir is a short directory for sockets, one per state directory, in the
// user's runtime directory or in /tmp.
func defaultRunDir(stateDir string) string {
	sum := sha256.Sum256([]byte(stateDir))
	name := "phala-" + hex.EncodeToString(sum[:4])
	if os.Getuid() == 0 {
		return "/run/" + name
	}
	if d := os.Getenv("XDG_RUNTIME_DIR"); d != "" && len(d) < 40 {
		return filepath.Join(d, name)
	}
	return filepath.Join(os.TempDir(), name)
}
