// Package claim holds the leaf nouns of attestation: what a verified piece of
// evidence says, and the list of checks that were made on it.
package claim

import (
	"fmt"
	"strings"
	"time"

	"github.com/confidential-cloud/phala/cvm"
)

// Phase says how far the boot had come when the evidence was made, read from the
// replayed event log alone.
type Phase string

const (
	PhaseEarly   Phase = "early"   // boot-mr-done not reached
	PhaseRelease Phase = "release" // the log ends exactly at boot-mr-done: no container can exist yet
	PhaseBooting Phase = "booting" // between boot-mr-done and system-ready
	PhaseRunning Phase = "running" // after system-ready
	// PhaseUnproven: the platform has no runtime register (SEV-SNP), so that nothing
	// says what has run since the launch.
	PhaseUnproven Phase = "unproven"
)

// Claims is what verified evidence says. Every value is covered by a verified
// signature or by a register that was replayed and matched.
type Claims struct {
	Platform  cvm.Platform `json:"platform"`
	RootSPKI  string       `json:"root_spki"` // hex sha256 of the trust root's SubjectPublicKeyInfo
	Variant   string       `json:"tee_variant"`
	Debug     bool         `json:"debug"`
	TCB       TCB          `json:"tcb"`
	DeviceID  cvm.DeviceID `json:"device_id"`
	PPID      string       `json:"ppid,omitempty"` // hex
	FMSPC     string       `json:"fmspc,omitempty"`
	Phase     Phase        `json:"phase"`
	CheckedAt time.Time    `json:"checked_at"`
	Expires   time.Time    `json:"expires"` // when the collateral it rests on ends

	MRTD          cvm.Measurement    `json:"mrtd"`
	RTMR          [4]cvm.Measurement `json:"rtmr"`
	MRSeam        cvm.Measurement    `json:"mr_seam"`
	MRConfigID    cvm.Measurement    `json:"mr_config_id"`
	MROwner       cvm.Measurement    `json:"mr_owner"`
	MROwnerConfig cvm.Measurement    `json:"mr_owner_config"`
	TDAttributes  uint64             `json:"td_attributes"`
	XFAM          uint64             `json:"xfam"`
	ReportData    []byte             `json:"report_data"` // 64 bytes

	// Of evidence that has none of the registers above.
	SNP   *SNP   `json:"snp,omitempty"`
	Nitro *Nitro `json:"nitro,omitempty"`

	AppID         cvm.AppID       `json:"app_id"`
	ComposeHash   cvm.ComposeHash `json:"compose_hash"`
	InstanceID    cvm.InstanceID  `json:"instance_id"`
	GPUPolicyHash []byte          `json:"gpu_policy_hash,omitempty"`
	OSImageHash   cvm.ImageHash   `json:"os_image_hash"` // bound by measurement, not by the event
	KeyProvider   []byte          `json:"key_provider,omitempty"`
	VMConfig      string          `json:"vm_config"`

	MRSystem     [32]byte `json:"mr_system"`     // over the key-provider event's hash, or zeros before it
	MRAggregated [32]byte `json:"mr_aggregated"` // over the quoted RTMR3
	MRBoot       [32]byte `json:"mr_boot"`       // mr_aggregated with RTMR3 replayed only through boot-mr-done
}

// SNP is what a SEV-SNP report says (AMD 56860).
type SNP struct {
	Product         string          `json:"product"` // Milan, Genoa, Turin
	Signer          string          `json:"signer"`  // vcek or vlek
	Version         uint32          `json:"version"`
	ChipID          string          `json:"chip_id"` // hex
	GuestSVN        uint32          `json:"guest_svn"`
	Policy          uint64          `json:"policy"`
	VMPL            uint32          `json:"vmpl"`
	PlatformInfo    uint64          `json:"platform_info"`
	Measurement     cvm.Measurement `json:"measurement"`
	HostData        [32]byte        `json:"host_data"`
	ReportID        [32]byte        `json:"report_id"` // names one launch of one VM
	IDKeyDigest     cvm.Measurement `json:"id_key_digest"`
	AuthorKeyDigest cvm.Measurement `json:"author_key_digest"`
	ReportedTCB     uint64          `json:"reported_tcb"`
	CommittedTCB    uint64          `json:"committed_tcb"`
	CurrentTCB      uint64          `json:"current_tcb"`
	LaunchTCB       uint64          `json:"launch_tcb"`
}

// Nitro is what an attestation document of AWS says.
type Nitro struct {
	ModuleID string                  `json:"module_id"`
	Time     time.Time               `json:"time"` // when the hypervisor made it
	PCRs     map[int]cvm.Measurement `json:"pcrs"`
}

// TCB is the vendor's judgement of the platform.
type TCB struct {
	Status     string   `json:"status"` // merged: UpToDate, SWHardeningNeeded, ..., Revoked
	Platform   string   `json:"platform"`
	Module     string   `json:"module,omitempty"`
	QE         string   `json:"qe,omitempty"`
	Advisories []string `json:"advisories"`
	EvalNumber int      `json:"evaluation_data_number"`
	// QEEvalNumber is that of the quoting enclave's identity.
	QEEvalNumber int `json:"qe_evaluation_data_number,omitempty"`
}

// Verdict of one check.
type Verdict string

const (
	Passed  Verdict = "passed"
	Failed  Verdict = "failed"
	Skipped Verdict = "skipped"
)

// Check is one thing that was looked at. Want and Got are short and safe to show.
type Check struct {
	Name     string  `json:"name"` // stable, for example "quote.signature", "eventlog.replay"
	Title    string  `json:"title,omitempty"`
	Verdict  Verdict `json:"verdict"`
	Required bool    `json:"required"`
	Want     string  `json:"want,omitempty"`
	Got      string  `json:"got,omitempty"`
	Reason   string  `json:"reason,omitempty"` // why it failed or was skipped
	Fix      string  `json:"fix,omitempty"`    // where to look next
}

// Rejection lists every check that was made; at least one required check failed
// or was skipped.
type Rejection struct {
	Checks []Check `json:"checks"`
	// Genuine says that a vendor (or the admitted simulated root) signed the evidence,
	// so that the refusal deserves a ledger leaf of its own (T12).
	Genuine bool `json:"genuine"`
	// Unverified is what the evidence says, for the words of a refusal (a deny leaf
	// names the app that was refused). Only fields whose checks passed mean anything.
	Unverified Claims `json:"-"`
}

// Error names the failed checks.
func (r *Rejection) Error() string {
	var s []string
	for _, c := range r.Checks {
		if c.Required && c.Verdict != Passed {
			t := c.Name
			if c.Reason != "" {
				t += ": " + c.Reason
			}
			if c.Want != "" || c.Got != "" {
				t += fmt.Sprintf(" (want %s, got %s)", c.Want, c.Got)
			}
			s = append(s, t)
		}
	}
	return "evidence rejected: " + strings.Join(s, "; ")
}

// OK reports whether every required check passed (and there is at least one).
func OK(checks []Check) bool {
	any := false
	for _, c := range checks {
		if c.Required {
			any = true
			if c.Verdict != Passed {
				return false
			}
		}
	}
	return any
}
