package qemu

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
)

// Argv is the command line after the program's name. The order of devices decides
// the ACPI tables, which are measured: it is the reference's order, and a change of
// it is a change of RTMR0. Values that could be read as another option are refused
// (code invalid) or escaped.
func Argv(l Launch) ([]string, error) {
	if err := l.check(); err != nil {
		return nil, err
	}
	b := &builder{l: &l}
	b.process()
	b.boot()
	b.disks()
	b.cards()
	b.link()
	b.numa()
	b.machine()
	b.passthrough()
	b.add("-smp", strconv.Itoa(l.VCPU))
	b.add("-m", strconv.Itoa(l.MemoryMiB)+"M")
	b.add("-append", l.Cmdline)
	return b.args, nil
}

type builder struct {
	l    *Launch
	args []string
}

func (b *builder) add(option string, value ...string) {
	b.args = append(append(b.args, option), value...)
}

// opt is one option with a list of properties: the first word, then "key=value"
// with commas in values doubled, which is how QEMU reads a comma.
func (b *builder) opt(option, word string, kv ...string) {
	var s strings.Builder
	s.WriteString(word)
	for i := 0; i+1 < len(kv); i += 2 {
		if s.Len() > 0 {
			s.WriteByte(',')
		}
		s.WriteString(kv[i] + "=" + strings.ReplaceAll(kv[i+1], ",", ",,"))
	}
	b.add(option, s.String())
}

// TCGCPU is the processor of emulated machines: everything that TCG emulates but what
// makes a guest's kernel slow there. Copies by rep movsb (erms, fsrm) go byte by byte, each
// stac and clac (smap) ends a block of translated code, and five levels of page tables
// (la57) are walked by software; a boot takes a fifth less without. The TSC stays, though a
// kernel may measure its frequency wrongly on a busy host: every other clock is an exit
// from translated code for each look at it, and the guest agent sees whether this one
// keeps time.
const TCGCPU = "max,-erms,-fsrm,-smap,-la57"

// process is what has nothing to do with the guest's view.
func (b *builder) process() {
	l := b.l
	switch l.Accel {
	case TCG:
		b.opt("-accel", "tcg", "thread", "multi", "tb-size", strconv.Itoa(l.TBSizeMiB))
		b.add("-cpu", TCGCPU)
	case SNP:
		b.add("-accel", "kvm")
		b.add("-cpu", SNPCPU)
	default:
		b.add("-accel", "kvm")
		b.add("-cpu", "host")
	}
	b.add("-nographic")
	b.add("-nodefaults")
	b.add("-no-user-config")
	b.opt("-name", "", "guest", l.ID)
	b.opt("-sandbox", "on", "obsolete", "deny", "elevateprivileges", "deny", "spawn", "deny", "resourcecontrol", "deny")
	// A guest that ended is held until the VMM has seen why; then the VMM ends QEMU.
	b.opt("-action", "", "reboot", "shutdown", "shutdown", "pause", "panic", "pause")
	b.add("-pidfile", l.PIDFile)
	b.opt("-chardev", "file", "id", "com0", "path", l.SerialLog, "append", "on")
	b.add("-serial", "chardev:com0")
	b.opt("-chardev", "socket", "id", "qmp", "fd", strconv.Itoa(l.QMPFD), "server", "on", "wait", "off")
	b.add("-qmp", "chardev:qmp")
}

func (b *builder) boot() {
	b.add("-bios", b.l.Firmware)
	b.add("-kernel", b.l.Kernel)
	b.add("-initrd", b.l.Initrd)
	b.opt("-global", "", "ICH9-LPC.acpi-pci-hotplug-with-bridge-support", "off")
	if n := b.l.PCIHole64Bytes; n > 0 {
		b.opt("-global", "", "q35-pcihost.pci-hole64-size", fmt.Sprintf("%#x", n))
	}
}

func (b *builder) disks() {
	l := b.l
	b.disk("hd0", serialRootfs, l.Rootfs, "raw", "readonly", "on")
	data := []string{"discard", "unmap"}
	if n := l.Limits.DiskBytesPerSec; n > 0 {
		data = append(data, "throttling.bps-total", strconv.FormatInt(n, 10))
	}
	if n := l.Limits.DiskIOPS; n > 0 {
		data = append(data, "throttling.iops-total", strconv.FormatInt(n, 10))
	}
	b.disk("hd1", serialData, l.DataDisk, l.DataFormat, data...)
	for i, v := range l.Volumes {
		b.disk("vol"+strconv.Itoa(i), serialVolume+strconv.Itoa(i), v, "raw", "readonly", "on")
	}
}

// disk never lets QEMU guess a format: a guest that writes a header of another
// format to its disk would choose what the next start reads.
func (b *builder) disk(id, serial, file, format string, kv ...string) {
	b.opt("-drive", "", append([]string{"file", file, "if", "none", "id", id, "format", format}, kv...)...)
	b.virtio("virtio-blk-pci", "drive", id, "serial", serial)
}

// virtio devices of a SEV-SNP guest must know that its memory is not theirs.
func (b *builder) virtio(device string, kv ...string) {
	if b.l.Accel == SNP {
		kv = append(kv, "disable-legacy", "on", "iommu_platform", "true")
	}
	b.opt("-device", device, kv...)
}

func (b *builder) link() {
	if l := b.l; l.CID != 0 {
		b.virtio("vhost-vsock-pci", "guest-cid", strconv.FormatUint(uint64(l.CID), 10), "vhostfd", strconv.Itoa(l.VSockFD))
	}
	if b.l.LinkFD != 0 {
		b.virtio("virtio-serial-pci", "id", "vser0")
		b.opt("-chardev", "socket", "id", "link", "fd", strconv.Itoa(b.l.LinkFD), "server", "on", "wait", "off")
		b.opt("-device", "virtserialport", "bus", "vser0.0", "chardev", "link", "name", linkPort)
	}
	b.disk("hd2", serialShared, b.l.SharedDisk, "raw", "readonly", "on")
}

func (b *builder) machine() {
	l := b.l
	kv := []string{}
	if l.Accel != TCG { // a property of KVM
		kv = append(kv, "kernel-irqchip", "split")
	}
	switch l.Accel {
	case TDX:
		kv = append(kv, "confidential-guest-support", "tdx")
	case SNP:
		if len(l.NUMA) == 0 {
			b.opt("-object", "memory-backend-memfd", "id", "ram1", "size", strconv.Itoa(l.MemoryMiB)+"M", "share", "true", "prealloc", "false")
			kv = append(kv, "memory-backend", "ram1")
		}
		b.opt("-object", "sev-snp-guest", "id", "sev0", "policy", "0x30000", "sev-device", "/dev/sev", "kernel-hashes", "on",
			"host-data", base64.StdEncoding.EncodeToString(l.HostData[:]),
			"cbitpos", strconv.Itoa(l.SEV.CBitPos), "reduced-phys-bits", strconv.Itoa(l.SEV.ReducedPhysBits))
		kv = append(kv, "confidential-guest-support", "sev0")
	}
	b.opt("-machine", "q35", append(kv, "hpet", "off")...)
	if l.Accel == TDX {
		b.add("-object", b.tdx())
	}
}

// tdx is the guest object, which QEMU takes as JSON: the socket's address is a
// structure.
func (b *builder) tdx() string {
	type socket struct {
		Type string `json:"type"`
		CID  string `json:"cid"`
		Port string `json:"port"`
	}
	o := struct {
		Type   string  `json:"qom-type"`
		ID     string  `json:"id"`
		Config string  `json:"mrconfigid"`
		Quotes *socket `json:"quote-generation-socket,omitempty"`
	}{Type: "tdx-guest", ID: "tdx", Config: base64.StdEncoding.EncodeToString(b.l.MRConfigID[:])}
	if p := b.l.QGSPort; p > 0 {
		o.Quotes = &socket{Type: "vsock", CID: "2", Port: strconv.FormatUint(uint64(p), 10)}
	}
	s, _ := json.Marshal(o) // strings only: cannot fail
	return string(s)
}
