package qemu

import (
	"errors"
	"log/slog"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/vmm/machine"
)

func TestWhichLinkAMachineHas(t *testing.T) {
	there := func(uint32) (*os.File, error) { return os.Open(os.DevNull) }
	taken := func(uint32) (*os.File, error) { return nil, unix.EADDRINUSE }
	gone := func(uint32) (*os.File, error) { return nil, os.ErrNotExist }
	for name, c := range map[string]struct {
		link  HostLink
		cid   uint32
		open  func(uint32) (*os.File, error)
		vsock bool
		code  cvm.Code
	}{
		"the host has it":            {LinkAuto, 20000, there, true, ""},
		"the host has it not":        {LinkAuto, 20000, gone, false, ""},
		"somebody has the id":        {LinkAuto, 20000, taken, false, ""},
		"a VM of an older VMM":       {LinkAuto, 0, there, false, ""},
		"serial, whatever there is":  {LinkSerial, 20000, there, false, ""},
		"vsock":                      {LinkVSock, 20000, there, true, ""},
		"vsock, and there is none":   {LinkVSock, 20000, gone, false, cvm.Precondition},
		"vsock, and the id is taken": {LinkVSock, 20000, taken, false, cvm.Conflict},
		"vsock of an older VMM":      {LinkVSock, 0, there, false, cvm.Precondition},
	} {
		o := DefaultOptions()
		o.HostLink = c.link
		d := &Driver{cfg: Config{Options: o}, log: slog.New(slog.DiscardHandler), vsock: c.open}
		f, err := d.vsockFor(machine.Machine{ID: "x", CID: c.cid})
		if (f != nil) != c.vsock || (err == nil) != (c.code == "") || err != nil && cvm.CodeOf(err) != c.code {
			t.Errorf("%s: vsock %t, %v", name, f != nil, err)
		}
		if f != nil {
			f.Close()
		}
	}
}

func TestContextIDsOfTheConfiguration(t *testing.T) {
	for name, edit := range map[string]func(*Options){
		"another word":     func(o *Options) { o.HostLink = "tcp" },
		"no word":          func(o *Options) { o.HostLink = "" },
		"the host's":       func(o *Options) { o.CIDStart = 2 },
		"none":             func(o *Options) { o.CIDPoolSize = 0 },
		"fewer than none":  func(o *Options) { o.CIDPoolSize = -1 },
		"beyond the last":  func(o *Options) { o.CIDStart, o.CIDPoolSize = 1<<32-3, 3 },
		"far beyond it":    func(o *Options) { o.CIDStart, o.CIDPoolSize = 20000, 1<<40 },
		"nothing at vsock": func(o *Options) { o.HostLink, o.CIDStart, o.CIDPoolSize = LinkVSock, 0, 0 },
	} {
		o := DefaultOptions()
		edit(&o)
		if err := o.Validate(); cvm.CodeOf(err) != cvm.Invalid {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, edit := range map[string]func(*Options){
		"as it is":      func(*Options) {},
		"the last ones": func(o *Options) { o.CIDStart, o.CIDPoolSize = 1<<32-3, 2 },
		"serial":        func(o *Options) { o.HostLink, o.CIDStart, o.CIDPoolSize = LinkSerial, 0, 0 },
	} {
		o := DefaultOptions()
		edit(&o)
		if err := o.Validate(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	o := DefaultOptions()
	if o.HostLink = LinkSerial; o.CIDs() != 0 {
		t.Error("machines without vsock get context ids")
	}
}

// The kernel says who has an id; without vhost-vsock nobody has one.
func TestTheKernelKeepsContextIDs(t *testing.T) {
	f, err := openVSock(testCID)
	if err != nil {
		if CIDInUse(testCID) && !errors.Is(err, unix.EADDRINUSE) {
			t.Error("an id is in use on a host without vhost-vsock")
		}
		t.Skipf("SKIPPED: %v", err)
	}
	defer f.Close()
	if !CIDInUse(testCID) {
		t.Error("the kernel gives one id twice")
	}
	if _, err := openVSock(testCID); !errors.Is(err, unix.EADDRINUSE) {
		t.Errorf("a second holder: %v", err)
	}
	if err := f.Close(); err != nil || CIDInUse(testCID) {
		t.Errorf("after its end: %v", err)
	}
	for _, cid := range []uint32{0, 1, 2} {
		if _, err := openVSock(cid); err == nil {
			t.Errorf("context id %d was given", cid)
		}
	}
}
