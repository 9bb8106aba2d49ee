package kms

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"

	"github.com/confidential-cloud/phala/appcompose"
	"github.com/confidential-cloud/phala/attest"
	"github.com/confidential-cloud/phala/attest/eventlog"
	"github.com/confidential-cloud/phala/attest/measure"
	"github.com/confidential-cloud/phala/attest/simtee"
	"github.com/confidential-cloud/phala/cvm"
)

// AppCompose is the fixed app-compose.json of every member. It has no instance id
// and no key provider, so that all members measure alike.
func AppCompose() []byte {
	no := false
	b, err := appcompose.Encode(&appcompose.Document{
		ManifestVersion: 2, Name: "phala-kms", Runner: appcompose.RunnerNone,
		KeyProvider: appcompose.ProviderNone, NoInstanceID: true, SecureTime: &no, AllowedEnvs: []string{},
	})
	if err != nil {
		panic(fmt.Sprintf("kms: the fixed app-compose does not encode: %v", err))
	}
	return b
}

// bootEvents is what a member's TD extends into RTMR3.
func bootEvents() ([]eventlog.Runtime, error) {
	doc, err := appcompose.Parse(AppCompose())
	if err != nil {
		return nil, err
	}
	compose := doc.Hash()
	gpu, err := doc.GPUPolicyHash()
	if err != nil {
		return nil, err
	}
	return []eventlog.Runtime{
		{Name: eventlog.SystemPreparing},
		{Name: eventlog.AppID, Payload: compose[:20]},
		{Name: eventlog.ComposeHash, Payload: compose[:]},
		{Name: eventlog.GPUPolicyHash, Payload: gpu[:]},
		{Name: eventlog.InstanceID},
		{Name: eventlog.BootMRDone},
		{Name: eventlog.KeyProvider, Payload: []byte(`{"name":"none","id":""}`)},
		{Name: eventlog.StorageFS, Payload: []byte("none")},
		{Name: eventlog.SystemReady},
	}, nil
}

// AppID is the app id that every member's evidence shows.
func AppID() cvm.AppID {
	h := sha256.Sum256(AppCompose())
	return cvm.AppID(h[:20])
}

// ExpectedMR computes the mr_aggregated that members with this vm_config (variant
// "container") will show, so that it can be allowed before they start.
func ExpectedMR(vmConfig string) ([32]byte, error) {
	regs, err := measure.Container(vmConfig)
	if err != nil {
		return [32]byte{}, err
	}
	events, err := bootEvents()
	if err != nil {
		return [32]byte{}, err
	}
	var rtmr3 cvm.Measurement
	for _, e := range events {
		rtmr3 = eventlog.Extend(rtmr3, e.Digest())
	}
	h := sha256.New() // dstack-core A.5; the three optional registers are zero
	for _, m := range []cvm.Measurement{regs.MRTD, regs.RTMR[0], regs.RTMR[1], regs.RTMR[2], rtmr3} {
		h.Write(m[:])
	}
	return [32]byte(h.Sum(nil)), nil
}

// Shape is the simulated TD of a member with this vm_config.
func Shape(vmConfig string) (simtee.Shape, error) {
	regs, err := measure.Container(vmConfig)
	if err != nil {
		return simtee.Shape{}, err
	}
	ccel, err := measure.ContainerCCEL(vmConfig)
	if err != nil {
		return simtee.Shape{}, err
	}
	return simtee.Shape{MRTD: regs.MRTD, RTMR: regs.RTMR, CCEL: ccel}, nil
}

// self is the member's own measured boot: it makes evidence for any report data.
type self struct {
	tee      TEE
	vmConfig string
	boot     []eventlog.Event
	events   []eventlog.Runtime
}

// measuredBoot extends the boot events. The TD must be fresh: registers only ever
// extend, so a second boot in the same TD would measure as something else.
func measuredBoot(ctx context.Context, tee TEE, vmConfig string) (*self, error) {
	if !json.Valid([]byte(vmConfig)) {
		return nil, cvm.Errorf(cvm.Invalid, "vm_config is not JSON")
	}
	events, err := bootEvents()
	if err != nil {
		return nil, err
	}
	table, err := tee.CCEL(ctx)
	if err != nil {
		return nil, fmt.Errorf("reading the boot event log: %w", err)
	}
	boot, err := eventlog.ParseCCEL(table)
	if err != nil {
		return nil, fmt.Errorf("boot event log: %w", err)
	}
	for _, e := range events {
		if err := tee.Extend(ctx, 3, e.Digest()); err != nil {
			return nil, fmt.Errorf("measuring %s: %w", e.Name, err)
		}
	}
	return &self{tee: tee, vmConfig: vmConfig, boot: boot, events: events}, nil
}

// evidence quotes over report data.
func (s *self) evidence(ctx context.Context, reportData [64]byte) (attest.Evidence, error) {
	q, err := s.tee.Quote(ctx, reportData)
	if err != nil {
		return attest.Evidence{}, fmt.Errorf("quoting: %w", err)
	}
	log := append([]eventlog.Event(nil), s.boot...)
	for _, e := range s.events {
		log = append(log, e.Event())
	}
	return attest.Evidence{Quote: q, EventLog: log, RuntimeEvents: s.events, ReportData: reportData, Config: s.vmConfig}, nil
}
