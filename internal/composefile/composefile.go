// Package composefile reads a docker-compose.yml for what our side must know
// before it goes, byte for byte, to the real Compose inside a guest: which ports
// are published, which environment names are used, and what cannot work in a
// confidential VM.
//
// Call Parse, then Lint. The file comes from strangers: nothing it names
// (include, extends, env_file, label_file) is ever opened.
package composefile

import (
	"fmt"
	"slices"

	"github.com/confidential-cloud/phala/cvm"
)

// MaxSize bounds a compose file, in bytes: what the cloud API accepts for the
// compose file and the pre-launch script together.
const MaxSize = 200 << 10

// ReasonInvalid is the machine word of every error Parse returns.
const ReasonInvalid = "compose-invalid"

// File is a compose file that Compose would accept.
type File struct {
	services []Service
	ports    []Port
	envs     []Env
	gpus     int       // that one of the services needs, at the most
	gpu      *Position // of that service's wish; nil: none needs a GPU
	findings []Finding
}

// GPUs is how many GPUs the file's CVM must have at least, and where that is asked for;
// nil when no service needs one. Services may use the same card, so it is what the one
// with the most needs: "all" is satisfied with one. Whether there are so many is not the
// file's to say.
func (f *File) GPUs() (int, *Position) { return f.gpus, f.gpu }

// Service is one service that starts without a profile being asked for.
type Service struct {
	Name  string
	Image string // as written, variables not replaced; "" when it only has build
	Line  int
}

// Port is one published TCP or UDP port.
type Port struct {
	Service   string
	Published int // on the CVM's own address: what the gateway reaches
	Target    int // in the container
	Protocol  string
	HostIP    string // "" = all addresses
	Line      int
}

// Reachable reports whether the gateway can route to the port: TCP, and not
// bound to the CVM's loopback.
func (p Port) Reachable() bool {
	return p.Protocol == "tcp" && p.HostIP != "127.0.0.1" && p.HostIP != "::1" && p.HostIP != "localhost"
}

// Env is one environment variable that the file reads when it starts.
type Env struct {
	Name     string
	Default  string // of ${NAME:-default}
	HasValue bool   // it has a default: the app starts without it
	Required bool   // ${NAME:?}: the app does not start without it
	Line     int
}

// Severity of a finding.
type Severity string

const (
	Error   Severity = "error"   // it cannot work in a CVM
	Warning Severity = "warning" // it works, and probably not as meant
)

// Finding is one thing that Lint has to say.
type Finding struct {
	Severity Severity `json:"severity"`
	Line     int      `json:"line"` // 1-based; 0 = the file as a whole
	Message  string   `json:"message"`
	Fix      string   `json:"fix,omitempty"`
}

func (f Finding) String() string {
	if f.Line == 0 {
		return f.Message
	}
	return fmt.Sprintf("line %d: %s", f.Line, f.Message)
}

// Position is where a file is wrong. Line and Column are 1-based, 0 = unknown.
type Position struct {
	Line, Column int
	Msg          string
}

func (p *Position) Error() string {
	switch {
	case p.Line == 0:
		return p.Msg
	case p.Column == 0:
		return fmt.Sprintf("line %d: %s", p.Line, p.Msg)
	}
	return fmt.Sprintf("line %d, column %d: %s", p.Line, p.Column, p.Msg)
}

// Services lists the services by name.
func (f *File) Services() []Service { return slices.Clone(f.services) }

// Ports lists the published ports by number. Ports whose number depends on a
// variable without a default are not in it (Lint says so).
func (f *File) Ports() []Port { return slices.Clone(f.ports) }

// Envs lists the variables the file reads, by name, without those that the guest
// agent gives to every app.
func (f *File) Envs() []Env { return slices.Clone(f.envs) }

// EnvNames lists their names, sorted.
func (f *File) EnvNames() []string {
	names := make([]string, 0, len(f.envs))
	for _, e := range f.envs {
		names = append(names, e.Name)
	}
	return names
}

// Lint lists what cannot work, and what will surprise, in a confidential VM;
// errors first, then by line.
func (f *File) Lint() []Finding { return slices.Clone(f.findings) }

// Check turns the errors of Lint into one coded error, or nil.
func (f *File) Check() error {
	for _, x := range f.findings {
		if x.Severity == Error {
			return cvm.Errorf(cvm.Invalid, "compose file: %s", x).WithReason(ReasonInvalid).WithFix(x.Fix)
		}
	}
	return nil
}

func invalid(p *Position) *cvm.Error {
	return cvm.Errorf(cvm.Invalid, "compose file: %w", p).WithReason(ReasonInvalid)
}
