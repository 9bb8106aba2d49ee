package cli

import (
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/pflag"

	"github.com/confidential-cloud/phala/attest/measure"
	"github.com/confidential-cloud/phala/attest/refvalue"
	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/vmm/image"
)

// maxImageFile bounds a firmware, kernel or initrd, in bytes.
const maxImageFile = 2 << 30

// source is what was named to be measured.
type source struct {
	image     *image.Image // nil: explicit files
	container bool
	files     measure.Files
	acpi      []measure.ACPI
	given     bool // there are files at all
}

func (s source) answer(variant string) measured {
	m := measured{Variant: variant}
	if s.image != nil {
		m.Image, m.Version = s.image.Hash, s.image.Meta.Version
	}
	return m
}

// measureSource reads the image or the files, and the list of ACPI tables.
func (a *app) measureSource(as []string, f measureFlags) (s source, err error) {
	names := [3]string{f.firmware, f.kernel, f.initrd}
	explicit := names != [3]string{} || f.cmdline != ""
	switch {
	case len(as) == 1 && explicit:
		return s, usage("name an image directory or its files, not both")
	case len(as) == 1:
		if names, err = a.openImage(as[0], f.snp, &s); err != nil || s.container {
			return s, err
		}
	case !explicit:
		return s, a.readACPI(f.acpi, "", &s)
	default:
		for i, flag := range []string{"--firmware", "--kernel", "--initrd"} {
			if names[i] == "" {
				return s, usage("%s is missing: firmware, kernel, initrd and command line are all measured", flag)
			}
			names[i] = a.path(names[i])
		}
		s.files.Cmdline = f.cmdline
	}
	s.given = true
	for i, dst := range []*[]byte{&s.files.Firmware, &s.files.Kernel, &s.files.Initrd} {
		if *dst, err = readBounded(names[i], maxImageFile); err != nil {
			return s, err
		}
	}
	beside := ""
	if s.image != nil {
		beside = filepath.Join(s.image.Dir, measure.ACPIFile)
	}
	return s, a.readACPI(f.acpi, beside, &s)
}

// openImage checks an image directory and says where its parts are.
func (a *app) openImage(dir string, snp bool, s *source) (names [3]string, err error) {
	path := a.path(dir)
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return names, cvm.Errorf(cvm.NotFound, "there is no image directory %s", dir)
	}
	if s.image, err = image.Open(path); err != nil {
		return names, err
	}
	if err := s.image.Verify(); err != nil {
		return names, err
	}
	m := s.image.Meta
	s.container = m.Driver == "container"
	s.files.Cmdline = m.Cmdline
	bios := m.BIOS
	if snp && m.BIOSSEV != "" {
		bios = m.BIOSSEV
	}
	for i, n := range []string{bios, m.Kernel, m.Initrd} {
		if n == "" && !s.container {
			return names, cvm.Errorf(cvm.Invalid, "guest image %s: %s names no %s", s.image.Name, image.MetadataFile, [...]string{"bios", "kernel", "initrd"}[i])
		}
		names[i] = filepath.Join(path, n)
	}
	return names, nil
}

// readACPI reads the named list, or the one beside the image if there is one.
func (a *app) readACPI(name, beside string, s *source) error {
	path := beside
	if name != "" {
		path = a.path(name)
	}
	if path == "" {
		return nil
	}
	b, err := readBounded(path, 8<<20)
	if name == "" && errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	s.acpi, err = measure.ParseACPI(b)
	return err
}

// readBounded reads a bounded file.
func readBounded(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, usage("%w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, usage("%w", err)
	}
	if int64(len(b)) > limit {
		return nil, usage("%s is over %d bytes", path, limit)
	}
	return b, nil
}

func (a *app) writeOut(name string, b []byte) error {
	if err := os.WriteFile(a.path(name), b, 0o644); err != nil { //nolint:gosec // public measurements
		return usage("%w", err)
	}
	a.say("%s", a.good("written to "+name))
	return nil
}

// printEntry prints the image as a feed lists it, to be put into a draft.
func (a *app) printEntry(src source, img measure.Image) error {
	if src.image == nil {
		return usage("--entry needs an image directory: the entry names its os_image_hash")
	}
	doc, err := img.Document()
	if err != nil {
		return err
	}
	e := json.NewEncoder(a.Stdout)
	e.SetIndent("", "  ")
	return e.Encode(refvalue.Image{OSImageHash: img.Hash, Version: img.Version, Status: refvalue.Admitted, TDX: doc, ACPI: src.acpi})
}

// shapeFlags are the VM's shape, as vm_config states it.
type shapeFlags struct {
	cpus                            uint32
	memory                          string
	t                               measure.Topology
	pic, twoPass, singlePass, noPIC bool
	hole                            string
}

func (f *shapeFlags) add(s *pflag.FlagSet) {
	s.Uint32Var(&f.cpus, "cpus", 0, "number of vCPUs")
	s.StringVar(&f.memory, "memory", "", "memory with unit, for example 2G")
	s.StringVar(&f.t.QEMUVersion, "qemu-version", "", "QEMU's version, for example 9.2.1")
	s.BoolVar(&f.twoPass, "two-pass", false, "MRTD built in two passes (default: what the QEMU version does)")
	s.BoolVar(&f.singlePass, "single-pass", false, "MRTD built in one pass")
	s.BoolVar(&f.pic, "pic", false, "the machine has a PIC (default: up to QEMU 8)")
	s.BoolVar(&f.noPIC, "no-pic", false, "the machine has none")
	s.StringVar(&f.hole, "pci-hole64-size", "", "size of the 64-bit PCI hole, for example 1T")
	s.BoolVar(&f.t.HugePages, "hugepages", false, "memory in huge pages")
	s.Uint32Var(&f.t.NumGPUs, "gpus", 0, "number of GPUs")
	s.Uint32Var(&f.t.NumNVSwitches, "nvswitches", 0, "number of NVSwitches")
	s.Uint32Var(&f.t.NumNICs, "nics", 1, "number of network cards")
	s.Uint32Var(&f.t.NumVerityVolumes, "verity-volumes", 0, "number of verity volumes")
	s.BoolVar(&f.t.SWTPM, "swtpm", false, "the VM has a software TPM")
	s.BoolVar(&f.t.HotplugOff, "hotplug-off", false, "PCI hotplug is off")
	s.StringVar(&f.t.HostShareMode, "host-share-mode", "", "how files of the host are shared, for example 9p")
}

// config is the VM's shape; cpus and memory must be named.
func (f shapeFlags) config(hash cvm.ImageHash) (c measure.VMConfig, err error) {
	if f.cpus == 0 || f.memory == "" {
		return c, usage("which VM shape? name --cpus and --memory, for example --cpus 2 --memory 2G")
	}
	if f.twoPass && f.singlePass || f.pic && f.noPIC {
		return c, usage("--two-pass and --single-pass, and --pic and --no-pic, exclude each other")
	}
	c = measure.VMConfig{Topology: f.t, OSImageHash: hash}
	c.CPUCount = f.cpus
	if c.MemorySize, err = parseSize(f.memory); err != nil {
		return c, usage("--memory: %w", err)
	}
	if c.MemorySize < 1<<20 {
		return c, usage("--memory %s is %d bytes: give a unit, for example 2G", f.memory, c.MemorySize)
	}
	if f.hole != "" {
		if c.PCIHole64Size, err = parseSize(f.hole); err != nil {
			return c, usage("--pci-hole64-size: %w", err)
		}
	}
	if f.twoPass || f.singlePass {
		c.TwoPass = &f.twoPass
	}
	var pic *bool
	if f.pic || f.noPIC {
		pic = &f.pic
	}
	c.Topology = c.WithDefaults(pic)
	return c, nil
}

// parseSize reads bytes with a binary unit: 2G, 512M, 2GiB, 2147483648.
func parseSize(s string) (uint64, error) {
	digits := strings.TrimRight(s, "KMGTiBkmgtb")
	n, err := strconv.ParseUint(digits, 10, 64)
	shift, ok := map[string]uint{"": 0, "b": 0, "k": 10, "m": 20, "g": 30, "t": 40}[strings.TrimSuffix(strings.TrimSuffix(strings.ToLower(s[len(digits):]), "ib"), "b")]
	if err != nil || !ok || n == 0 || n > 1<<62>>shift {
		return 0, errors.New("want a size with a unit, for example 2G or 512M, not " + strconv.Quote(s))
	}
	return n << shift, nil
}
