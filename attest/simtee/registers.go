package simtee

import (
	"context"
	"net/http"

	"github.com/confidential-cloud/phala/cvm"
)

// Registers is what a guest can read of its own TD (the TD report's measurements).
type Registers struct {
	MRTD       cvm.Measurement    `json:"mrtd"`
	MRConfigID cvm.Measurement    `json:"mr_config_id"`
	RTMR       [4]cvm.Measurement `json:"rtmr"`
}

// pathRegisters is GET -> Registers.
const pathRegisters = "/registers"

// Registers reads the TD's measurements as they are now.
func (t *TD) Registers(context.Context) (r Registers, err error) {
	return r, t.locked(func() error {
		r = Registers{MRTD: t.shape.MRTD, MRConfigID: t.shape.MRConfigID}
		copy(r.RTMR[:], t.shape.RTMR[:])
		r.RTMR[3] = t.rtmr3
		return nil
	})
}

// Registers reads the TD's measurements as they are now.
func (d *Device) Registers(ctx context.Context) (r Registers, err error) {
	return r, d.rpc.Call(ctx, http.MethodGet, pathRegisters, nil, &r)
}
