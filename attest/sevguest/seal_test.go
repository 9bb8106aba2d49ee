package sevguest_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"testing"

	labi "github.com/google/go-sev-guest/client/linuxabi"
	pb "github.com/google/go-sev-guest/proto/sevsnp"
	"github.com/google/go-sev-guest/verify/testdata"

	"github.com/confidential-cloud/phala/attest/sevguest"
	"github.com/confidential-cloud/phala/attest/simtee"
	"github.com/confidential-cloud/phala/cvm"
)

// Another chip, image, policy, app or purpose has another sealing key; the same launch
// on the same chip has the same one again.
func TestSealKey(t *testing.T) {
	hw, err := simtee.NewAMD(simtee.AMDConfig{Seed: make([]byte, 32)})
	if err != nil {
		t.Fatal(err)
	}
	other, err := hw.With(func(c *simtee.AMDConfig) { c.Machine = "second" })
	if err != nil {
		t.Fatal(err)
	}
	seal := func(hw *simtee.AMD, s simtee.SNPShape, purpose string) string {
		t.Helper()
		k, err := sevguest.New(hw.Launch(s)).SealKey(t.Context(), []byte(purpose))
		if err != nil || len(k) != 32 {
			t.Fatalf("%d bytes: %v", len(k), err)
		}
		return hex.EncodeToString(k)
	}
	base := simtee.SNPShape{Measurement: cvm.Measurement{1}, HostData: [32]byte{2}}
	want := seal(hw, base, "a")
	if again := seal(hw, base, "a"); again != want {
		t.Error("the next launch of the same has another key")
	}
	image, app, policy := base, base, base
	image.Measurement[0], app.HostData[0], policy.Policy = 9, 9, simtee.DefaultGuestPolicy|1<<16
	for name, got := range map[string]string{
		"chip": seal(other, base, "a"), "image": seal(hw, image, "a"), "app": seal(hw, app, "a"), "policy": seal(hw, policy, "a"), "purpose": seal(hw, base, "b"),
	} {
		if got == want {
			t.Errorf("another %s has the same key", name)
		}
	}
}

// What is no key is not sealed with.
func TestSealKeyRefusals(t *testing.T) {
	// A sealing key is asked for with zero report data, and the report must hold it.
	report := bytes.Clone(testdata.AttestationBytes)
	copy(report[0x50:0x90], make([]byte, 64))
	for name, s := range map[string]source{
		"none":   {report: report},
		"zeros":  {report: report, key: make([]byte, 32)},
		"short":  {report: report, key: []byte{1}},
		"failed": {report: report, err: errors.New("no")},
	} {
		if k, err := sevguest.New(s).SealKey(t.Context(), nil); cvm.CodeOf(err) != cvm.Unavailable || k != nil {
			t.Errorf("%s: %d bytes, %v", name, len(k), err)
		}
	}
}

// node is /dev/sev-guest as far as derived keys go.
type node struct {
	asked  labi.SnpDerivedKeyReqABI
	status uint32
}

func (*node) Open(string) error       { return nil }
func (*node) Close() error            { return nil }
func (*node) Product() *pb.SevProduct { return nil }

func (n *node) Ioctl(command uintptr, req any) (uintptr, error) {
	r, ok := req.(*labi.SnpUserGuestRequest)
	if !ok || command != labi.IocSnpGetDerivedKey {
		return 0, errors.New("another command")
	}
	q, ok := r.ReqData.(*labi.SnpDerivedKeyReqABI)
	res, ok2 := r.RespData.(*labi.SnpDerivedKeyRespABI)
	if !ok || !ok2 {
		return 0, errors.New("another request")
	}
	n.asked, res.Status, res.Data = *q, n.status, [32]byte{7}
	return 0, nil
}

// The request is for a key of VMPL 0 under the chip's own key, mixed with guest policy
// and launch digest and with nothing that the guest could choose.
func TestDerivedKeyRequest(t *testing.T) {
	n := &node{}
	k, err := sevguest.Derive(n, sevguest.FieldPolicy|sevguest.FieldMeasurement)
	if err != nil || k[0] != 7 {
		t.Fatalf("%x %v", k, err)
	}
	if n.asked.RootKeySelect != 0 || n.asked.GuestFieldSelect != 0b1001 || n.asked.Vmpl != 0 || n.asked.GuestSVN != 0 || n.asked.TCBVersion != 0 {
		t.Errorf("asked for %+v", n.asked)
	}
	if k, err := sevguest.Derive(&node{status: 0x16}, sevguest.FieldPolicy); err == nil {
		t.Errorf("a status of the firmware is no error: %x", k)
	}
	if _, err := sevguest.Derive(n, 1<<7); cvm.CodeOf(err) != cvm.Invalid {
		t.Errorf("an unknown field: %v", err)
	}
}
