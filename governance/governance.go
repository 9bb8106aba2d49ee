// Package governance answers one question: may this verified code run? The
// answer comes from an Authority (a chain, or an allow-list file), which is
// asked about exactly what was verified and nothing else.
package governance

import (
	"context"
	"time"

	"github.com/confidential-cloud/phala/cvm"
)

// BootRequest is what a verified boot claims to be: the AppBootInfo of the
// reference's contracts, field by field.
type BootRequest struct {
	AppID        cvm.AppID       `json:"app_id"`
	ComposeHash  cvm.ComposeHash `json:"compose_hash"`
	InstanceID   cvm.InstanceID  `json:"instance_id"`
	DeviceID     cvm.DeviceID    `json:"device_id"`
	MRAggregated [32]byte        `json:"mr_aggregated"`
	MRSystem     [32]byte        `json:"mr_system"`
	OSImageHash  cvm.ImageHash   `json:"os_image_hash"`
	TCBStatus    string          `json:"tcb_status"`
	AdvisoryIDs  []string        `json:"advisory_ids"`
}

// Decision is an Authority's answer and the view of the world it rests on.
type Decision struct {
	Allowed bool   `json:"allowed"`
	Reason  string `json:"reason"` // the contract's text for a deny, or ours
	// GatewayAppID is what the authority names as the gateway at the same view.
	GatewayAppID string `json:"gateway_app_id,omitempty"`
	View         View   `json:"view"`
}

// View is the chain state a decision was read at. Static authorities leave it zero
// but for Source.
type View struct {
	Source    string    `json:"source"` // "ethereum" or "static"
	ChainID   uint64    `json:"chain_id,omitempty"`
	Contract  string    `json:"contract,omitempty"` // 0x-address of DstackKms
	Final     BlockRef  `json:"final"`              // the final block: an allow must hold here
	Head      BlockRef  `json:"head"`               // and here; a deny needs only this one (T2)
	SeenAt    time.Time `json:"seen_at"`            // local time the head was read
	FinalMode string    `json:"final_mode,omitempty"`
}

// BlockRef names a block.
type BlockRef struct {
	Number uint64    `json:"number"`
	Hash   string    `json:"hash"` // 0x-hex
	Time   time.Time `json:"time"`
}

// Authority decides. A returned error means "no answer", which refuses like a
// deny does (T9); it carries code unavailable and reason "chain-stale",
// "chain-unreachable", "chain-disagrees" or "chain-went-back".
type Authority interface {
	// AuthorizeApp asks whether an app may boot.
	AuthorizeApp(ctx context.Context, r BootRequest) (Decision, error)
	// AuthorizeKMS asks whether a KMS member may hold root secrets.
	AuthorizeKMS(ctx context.Context, r BootRequest) (Decision, error)
	// Info describes the authority for GetMeta and reports.
	Info(ctx context.Context) (Info, error)
}

// Info describes an authority.
type Info struct {
	Source            string `json:"source"`
	ChainID           uint64 `json:"chain_id,omitempty"`
	Contract          string `json:"contract,omitempty"`
	GatewayAppID      string `json:"gateway_app_id,omitempty"`
	AppImplementation string `json:"app_implementation,omitempty"`
	View              View   `json:"view"`
}
