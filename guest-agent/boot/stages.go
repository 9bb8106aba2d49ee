package boot

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"

	"github.com/confidential-cloud/phala/appcompose"
	"github.com/confidential-cloud/phala/attest/eventlog"
	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/guest-agent/guestapi"
)

func (b *boot) read(ctx context.Context) (err error) {
	if b.s.Shared, err = b.Read(); err != nil {
		return err
	}
	b.s.App = b.s.Shared.Compose
	if err := supported(b.s.App, b.AllowUnpinned, b.Volumes, b.Events.Variant()); err != nil {
		return err
	}
	b.tellUnknownKeys(ctx)
	return b.Events.Begin(ctx, b.s.App.EventLogVersion, b.s.Shared.Sys.VMConfig)
}

// tellUnknownKeys reports what of the app-compose is ignored; from manifest 3 on
// appcompose refuses such keys.
func (b *boot) tellUnknownKeys(ctx context.Context) {
	keys := b.s.App.Unknown
	if len(keys) == 0 {
		return
	}
	b.Log.Warn("app-compose: keys that this guest does not know are ignored", "keys", keys)
	p, err := json.Marshal(keys)
	if err == nil {
		err = b.Host.Notify(ctx, guestapi.Notify{Event: guestapi.EventUnknownKeys, Payload: string(p)})
	}
	if err != nil {
		b.Log.Debug("the host did not take a notification", "err", err)
	}
}

// supported refuses what the app asks for and this guest would not give: an app
// must never run with less than it measured.
func supported(d *appcompose.Document, allowUnpinned, volumes bool, variant string) error {
	no := func(format string, args ...any) error {
		return cvm.Errorf(cvm.Unsupported, "app-compose: "+format, args...).WithReason(ReasonUnsupported)
	}
	switch d.Provider() {
	case appcompose.ProviderKMS:
		if d.KeyProviderID == "" && !allowUnpinned {
			return cvm.Errorf(cvm.Denied, "app-compose names key provider kms without key_provider_id: any KMS could answer").
				WithReason(ReasonUnpinned).WithFix("set key_provider_id to the KMS root key (hex), as `phala deploy` does")
		}
	case appcompose.ProviderNone:
	default:
		return no("key_provider %q is not supported by this guest", d.Provider())
	}
	switch d.Runner {
	case appcompose.RunnerDockerCompose, appcompose.RunnerNone:
	default:
		return no("runner %q is not supported by this guest", d.Runner)
	}
	if n, ok := d.SwapSize.(float64); d.SwapSize != nil && (!ok || n != 0) && d.SwapSize != "0" && d.SwapSize != "" {
		return no("swap_size %v is not supported by this guest, which has no swap", d.SwapSize)
	}
	vols, err := d.Volumes()
	if err != nil {
		return err
	}
	if len(vols) > 0 && !volumes {
		return no("verity_volumes are not supported by this guest")
	}
	if r := d.Requirements; r != nil && (r.OSVersion != "" || r.LaunchTokenHash != "" || len(r.GPUPolicy) > 0 ||
		(r.TDXMeasureACPITables != nil && *r.TDXMeasureACPITables)) {
		return no("requirements beyond platforms are not supported by this guest")
	}
	if r := d.Requirements; r != nil && r.Platforms != nil {
		for _, p := range r.Platforms {
			if p == variant {
				return nil
			}
		}
		return no("requirements.platforms does not name %s, which this guest is", variant)
	}
	return nil
}

// measure emits the launch events in the reference's order (A.4, 1 to 7).
func (b *boot) measure(ctx context.Context) error {
	s := b.s
	app, inst, seed, fresh, err := identity(s.Shared, b.Rand, b.Events.Variant())
	if err != nil {
		return err
	}
	s.AppID, s.InstanceID = app, inst
	if err := b.checkLaunch(ctx); err != nil {
		return err
	}
	hash := s.App.Hash()
	gpu, err := s.App.GPUPolicyHash()
	if err != nil {
		return err
	}
	type event struct {
		name    string
		payload []byte
	}
	events := []event{{eventlog.SystemPreparing, nil}, {eventlog.AppID, app[:]}, {eventlog.ComposeHash, hash[:]}}
	for _, script := range s.App.InitScript {
		h := sha256.Sum256([]byte(script))
		events = append(events, event{eventlog.InitScriptHash, h[:]})
	}
	id := inst[:]
	if inst.IsZero() {
		id = nil
	}
	events = append(events, event{eventlog.GPUPolicyHash, gpu[:]}, event{eventlog.InstanceID, id})
	for _, e := range events {
		if err := b.Events.Emit(ctx, e.name, e.payload); err != nil {
			return err
		}
	}
	return b.tellInstance(ctx, seed, fresh)
}

// tellInstance has the seed of a new instance kept. A seed that is lost means a
// disk that never opens again, so a refusal ends the boot.
func (b *boot) tellInstance(ctx context.Context, seed []byte, fresh bool) error {
	info := guestapi.InstanceInfo{Seed: hex.EncodeToString(seed), InstanceID: b.s.InstanceID.String(), AppID: b.s.AppID.String()}
	if b.s.InstanceID.IsZero() {
		info.InstanceID = ""
	}
	if fresh && b.KeepInstance != nil {
		if err := b.KeepInstance(info); err != nil {
			return err
		}
	}
	p, err := json.Marshal(info)
	if err != nil {
		return err
	}
	err = b.Host.Notify(ctx, guestapi.Notify{Event: "instance.info", Payload: string(p)})
	if err != nil && fresh {
		return cvm.Errorf(cvm.Unavailable, "the host did not keep the new instance id: %w", err).WithReason(ReasonHost)
	}
	return nil
}

func (b *boot) bootDone(ctx context.Context) error {
	return b.Events.Emit(ctx, eventlog.BootMRDone, nil)
}

// keys asks the provider while the log ends at boot-mr-done. os-image-hash is
// measured once, after one answer was accepted: measuring it per try would leave a
// log that no verifier can replay.
func (b *boot) keys(ctx context.Context) (err error) {
	if b.s.App.Provider() == appcompose.ProviderKMS {
		b.s.Keys, err = b.KMS(ctx, b.s, func(text string) { b.progress(ctx, text) })
	} else {
		b.s.Keys, err = b.Local(ctx, b.s)
	}
	if err != nil || b.s.Keys.OSImageHash == nil {
		return err
	}
	return b.Events.Emit(ctx, eventlog.OSImageHash, b.s.Keys.OSImageHash[:])
}

// ProviderEvent is the payload of the key-provider event; the key order counts.
type ProviderEvent struct {
	Name string `json:"name"`
	ID   string `json:"id"` // hex DER SPKI of the KMS root CA, or ""
}

func (b *boot) keyProvider(ctx context.Context) (err error) {
	k := b.s.Keys
	b.s.KeyProvider, err = json.Marshal(ProviderEvent{Name: k.Provider, ID: hex.EncodeToString(k.RootSPKI)})
	if err != nil {
		return err
	}
	return b.Events.Emit(ctx, eventlog.KeyProvider, b.s.KeyProvider)
}

func (b *boot) disk(ctx context.Context) (err error) {
	if b.s.StorageFS, err = b.Disk(ctx, b.s); err != nil {
		return err
	}
	return b.Events.Emit(ctx, eventlog.StorageFS, []byte(b.s.StorageFS))
}

func (b *boot) systemReady(ctx context.Context) error {
	return b.Events.Emit(ctx, eventlog.SystemReady, nil)
}
