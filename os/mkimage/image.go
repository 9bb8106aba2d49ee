package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/confidential-cloud/phala/attest/measure"
	"github.com/confidential-cloud/phala/internal/verity"
)

// config is one image to make.
type config struct {
	base, agent, initProgram, boot, modules, lock, version, out string
	// snpFirmware is a file with firmware for SEV-SNP machines; "": none.
	snpFirmware   string
	dev, unlocked bool
	epoch         int64
	level         int // of zstd
}

// Files of an image directory (docs/design/004-virtual-machines.md).
const (
	firmwareFile = "ovmf.fd"
	sevFile      = "ovmf-sev.fd"
	kernelFile   = "bzImage"
	initrdFile   = "initramfs.cpio.gz"
	rootfsFile   = "rootfs.img"
	metadataFile = "metadata.json"
	tdxFile      = "measurement.tdx.cbor"
	snpFile      = "measurement.snp.cbor"
	sbomFile     = "sbom.cdx.json"
	sumsFile     = "sha256sum.txt"
	digestFile   = "digest.txt"
)

const cmdline = "console=ttyS0 panic=1 oops=panic net.ifnames=0 biosdevname=0 mce=off pci=noearly pci=nommconf random.trust_cpu=y random.trust_bootloader=n tsc=reliable no-kvmclock no_timer_check"

// metadata is metadata.json: the reference's keys and ours.
type metadata struct {
	BIOS       string `json:"bios"`
	BIOSSEV    string `json:"bios-sev,omitempty"`
	Kernel     string `json:"kernel"`
	Cmdline    string `json:"cmdline"`
	Initrd     string `json:"initrd"`
	Rootfs     string `json:"rootfs"`
	RootfsHash string `json:"rootfs_hash"`
	Version    string `json:"version"`
	Revision   string `json:"git_revision"`
	SharedRO   bool   `json:"shared_ro"`
	IsDev      bool   `json:"is_dev"`
	Driver     string `json:"driver"`
	// Unlocked: made of what the archive had, not of the locked packages. Another
	// build may not give the same bytes.
	Unlocked bool `json:"unlocked,omitempty"`
}

func (c config) build(ctx context.Context) error {
	for name, v := range map[string]string{"base": c.base, "agent": c.agent, "init": c.initProgram, "boot": c.boot,
		"modules": c.modules, "lock": c.lock, "version": c.version, "out": c.out} {
		if v == "" {
			return fmt.Errorf("-%s is missing", name)
		}
	}
	packages, err := readLock(c.lock)
	if err != nil {
		return err
	}
	mods, err := selectModules(ctx, c.boot, c.modules)
	if err != nil {
		return err
	}
	files, err := c.bootFiles(mods)
	if err != nil {
		return err
	}
	root, err := c.rootfs(ctx, mods)
	if err != nil {
		return err
	}
	return c.finish(files, root, packages)
}

// bootFiles writes firmware, kernel and initramfs.
func (c config) bootFiles(mods modules) (f measure.Files, err error) {
	if f.Firmware, err = c.copyOne("usr/share/ovmf/OVMF.fd", firmwareFile); err != nil {
		return f, err
	}
	if f.Kernel, err = c.copyOne("usr/lib/modules/"+mods.release+"/vmlinuz", kernelFile); err != nil {
		return f, err
	}
	program, err := os.ReadFile(c.initProgram)
	if err != nil {
		return f, err
	}
	if f.Initrd, err = initramfs(program, mods.early, time.Unix(c.epoch, 0)); err != nil {
		return f, err
	}
	return f, c.write(initrdFile, f.Initrd)
}

func (c config) copyOne(from, to string) ([]byte, error) {
	b, err := os.ReadFile(filepath.Join(c.boot, from))
	if err != nil {
		return nil, err
	}
	return b, c.write(to, b)
}

func (c config) write(name string, b []byte) error {
	path := filepath.Join(c.out, name)
	if err := os.WriteFile(path, b, 0o644); err != nil { //nolint:gosec // an image is public
		return err
	}
	return os.Chmod(path, 0o644) //nolint:gosec // whatever the umask is
}

// finish writes what describes the image.
func (c config) finish(f measure.Files, root verity.Root, packages []pkg) error {
	f.Cmdline = fmt.Sprintf("%s %s=%x %s=%d", cmdline, verity.HashKey, root.Hash, verity.SizeKey, root.Size)
	m := metadata{BIOS: firmwareFile, Kernel: kernelFile, Cmdline: f.Cmdline, Initrd: initrdFile, Rootfs: rootfsFile,
		RootfsHash: hex.EncodeToString(root.Hash[:]), Version: c.version, SharedRO: true, IsDev: c.dev, Driver: "qemu", Unlocked: c.unlocked}
	img, err := measure.New(f)
	if err != nil {
		return fmt.Errorf("measuring the image for TDX: %w", err)
	}
	tdx, err := img.Document()
	if err != nil {
		return fmt.Errorf("%s: %w", tdxFile, err)
	}
	sbom, err := billOfMaterials(c, packages)
	if err != nil {
		return fmt.Errorf("%s: %w", sbomFile, err)
	}
	listed := []string{firmwareFile, initrdFile, kernelFile, metadataFile, sbomFile, tdxFile}
	more, err := c.forSNP(f, &m)
	if err != nil {
		return err
	}
	listed = append(listed, more...)
	meta, err := json.Marshal(m)
	if err != nil {
		return err
	}
	if err = errors.Join(c.write(metadataFile, append(meta, '\n')), c.write(sbomFile, sbom), c.write(tdxFile, tdx)); err != nil {
		return err
	}
	return c.sums(listed)
}

// forSNP writes what SEV-SNP machines need beside f: their firmware, which must have a
// page for the kernel's hashes, and what it measures. Without such firmware the image is
// for other machines only.
func (c config) forSNP(f measure.Files, m *metadata) (listed []string, err error) {
	if c.snpFirmware == "" {
		fmt.Fprintf(os.Stderr, "image: no %s: no firmware for SEV-SNP was given (docs/ops/guest-image.md)\n", snpFile)
		return nil, nil
	}
	if f.Firmware, err = os.ReadFile(c.snpFirmware); err != nil {
		return nil, err
	}
	doc, err := measure.SNPFiles(f).Document()
	if err != nil {
		return nil, fmt.Errorf("firmware for SEV-SNP, %s: %w", c.snpFirmware, err)
	}
	m.BIOSSEV = sevFile
	return []string{sevFile, snpFile}, errors.Join(c.write(sevFile, f.Firmware), c.write(snpFile, doc))
}

// sums writes the checksum file, whose own digest names the image. The root filesystem
// is not in it: the command line's root hash commits to it.
func (c config) sums(listed []string) error {
	var b strings.Builder
	for _, name := range listed {
		content, err := os.ReadFile(filepath.Join(c.out, name))
		if err != nil {
			return err
		}
		fmt.Fprintf(&b, "%x  %s\n", sha256.Sum256(content), name)
	}
	return errors.Join(c.write(sumsFile, []byte(b.String())), c.write(digestFile, fmt.Appendf(nil, "%x\n", sha256.Sum256([]byte(b.String())))))
}
