package simtee

import (
	"context"
	"net/http"
	"net/url"

	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/internal/rpc"
)

// Control is the VMM's client of a running Hardware.
type Control struct{ rpc rpc.Client }

// NewControl uses the control socket at sock.
func NewControl(sock string) *Control { return &Control{client(sock)} }

func client(sock string) rpc.Client {
	return rpc.Client{Base: "http://unix", HTTP: rpc.UnixClient(sock)}
}

// CreateTD starts a TD and its device socket at the path sock (a dead socket
// there is replaced). A name in use is a conflict with reason "td-exists".
func (c *Control) CreateTD(ctx context.Context, name, sock string, s Shape) error {
	return c.rpc.Call(ctx, http.MethodPost, pathTD, createRequest{Name: name, Socket: sock, Shape: s}, nil)
}

// DestroyTD ends a TD and removes its socket; an unknown name is not_found.
func (c *Control) DestroyTD(ctx context.Context, name string) error {
	return c.rpc.Call(ctx, http.MethodDelete, pathTD+"/"+url.PathEscape(name), nil, nil)
}

// Info describes the machine.
func (c *Control) Info(ctx context.Context) (info Info, err error) {
	return info, c.rpc.Call(ctx, http.MethodGet, pathInfo, nil, &info)
}

// Device is the guest's client of its TD (what configfs-tsm, sysfs and CCEL offer).
type Device struct{ rpc rpc.Client }

// NewDevice uses the device socket at sock.
func NewDevice(sock string) *Device { return &Device{client(sock)} }

// Quote signs a quote over report data and the present registers.
func (d *Device) Quote(ctx context.Context, reportData [64]byte) ([]byte, error) {
	var out quoteResponse
	err := d.rpc.Call(ctx, http.MethodPost, pathQuote, quoteRequest{reportData[:]}, &out)
	return out.Quote, err
}

// Extend extends RTMR2 or RTMR3.
func (d *Device) Extend(ctx context.Context, index int, digest cvm.Measurement) error {
	return d.rpc.Call(ctx, http.MethodPost, pathExt, extendRequest{index, digest}, nil)
}

// CCEL returns the firmware's event log (table data).
func (d *Device) CCEL(ctx context.Context) ([]byte, error) {
	var out ccelResponse
	err := d.rpc.Call(ctx, http.MethodGet, pathCCEL, nil, &out)
	return out.CCEL, err
}

// SealKey derives 32 bytes from the hardware's secret, MRTD, RTMR0-3 and context.
// The result is key material.
func (d *Device) SealKey(ctx context.Context, context []byte) ([]byte, error) {
	var out sealResponse
	err := d.rpc.Call(ctx, http.MethodPost, pathSeal, sealRequest{context}, &out)
	return out.Key, err
}
