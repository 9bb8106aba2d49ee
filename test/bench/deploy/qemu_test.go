package deploy

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/confidential-cloud/phala/devcloud"
	"github.com/confidential-cloud/phala/internal/cpio"
	"github.com/confidential-cloud/phala/vmm/image"
	"github.com/confidential-cloud/phala/vmm/qemu"
)

// TestMachine deploys on the driver qemu (emulated here) and, in turn, boots the same
// firmware and kernel with an init that does nothing.
func TestMachine(t *testing.T) {
	if *machines == 0 {
		t.Skip("SKIPPED: a measurement (make bench-deploy)")
	}
	if _, err := exec.LookPath(qemu.DefaultOptions().Binary); err != nil {
		t.Skip("SKIPPED: QEMU is not installed")
	}
	b := start(t, devcloud.DriverQEMU, *prebuilt)
	file := b.composeFile()
	var all []round
	var mem memory
	var size vmSize
	for i := range *machines {
		name := fmt.Sprintf("bench-%d", i)
		used := watchHypervisor(filepath.Join(b.cfg.StateDir, "vmm", "machines"))
		line, vm := b.deploy(name, file, 12*time.Minute)
		t.Logf("processor time of the hypervisor\n%s", used.table(line))
		size = vmSize{vm.Spec.Resources.VCPU, vm.Spec.Resources.MemoryMiB}
		if i+1 == *machines {
			mem = b.memory(vm)
			t.Logf("processor time of the machine\n%s", strings.SplitN(mem.Stat, "\n", 2)[0])
			t.Logf("slabs\n%s\nvmalloc\n%s\nzones\n%s", mem.Slabs, mem.Vmalloc, mem.Zones)
		}
		b.remove(name)
		all = append(all, round{line, bareKernel(t, b.c.Image(), size)})
	}
	publish(t, "qemu", machineText(all)+"\n"+mem.machine(size)+"\n"+mem.processes()+"\n"+sizes(t, b.c.Image()))
}

// vmSize is a machine's.
type vmSize struct{ vcpu, memoryMiB int }

func machineText(all []round) string {
	var out strings.Builder
	fmt.Fprintf(&out, "Driver `qemu`, `-accel tcg`, %d deploys, each before a boot of the same firmware and kernel with an empty init. The app is asked for its first answer every %s.\n\n", len(all), askEvery(devcloud.DriverQEMU))
	out.WriteString(table(lineOf(all)))
	bare := func(r round) time.Duration { return r.bare }
	fmt.Fprintf(&out, "\n| sum | median ms | least | most | ratio |\n|---|---|---|---|---|\n")
	fmt.Fprintf(&out, "| firmware and kernel to an empty init | %s | 1 |\n", each(all, bare).cells())
	for _, s := range []struct {
		name string
		pick func(string) bool
	}{
		{"from the VMM's start to the first HTTPS answer", launched},
		{"from `phala deploy` to the first HTTPS answer", unverified},
		{"the same, verified", func(string) bool { return true }},
	} {
		of := func(r round) time.Duration { return r.line.sum(s.pick) }
		fmt.Fprintf(&out, "| %s | %s | %.2f |\n", s.name, each(all, of).cells(), ratios(all, of, bare))
	}
	return out.String()
}

// bareKernel is the time from the start of QEMU to the init's word.
func bareKernel(t *testing.T, img *image.Image, size vmSize) time.Duration {
	t.Helper()
	dir := t.TempDir()
	bin, initrd := filepath.Join(dir, "init"), filepath.Join(dir, "initrd")
	build(t, ".", bin, "./testdata/init")
	b, err := os.ReadFile(bin)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(initrd, initramfs(t, b), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	o := qemu.DefaultOptions()
	cmd := exec.CommandContext(ctx, o.Binary, "-accel", "tcg,thread=multi,tb-size="+strconv.Itoa(o.TBSizeMiB), "-cpu", qemu.TCGCPU, "-machine", "q35,hpet=off",
		"-smp", strconv.Itoa(size.vcpu), "-m", strconv.Itoa(size.memoryMiB), "-nographic", "-nodefaults", "-no-user-config", "-no-reboot", "-serial", "stdio",
		"-bios", filepath.Join(img.Dir, img.Meta.BIOS), "-kernel", filepath.Join(img.Dir, img.Meta.Kernel), "-initrd", initrd, "-append", img.Meta.Cmdline)
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	said := listen(stdout)
	said.wait()
	if err := cmd.Wait(); err != nil {
		t.Fatalf("the bare kernel: %v\n%s", err, said.text())
	}
	return said.when(func(f string, a ...any) { t.Fatalf(f+"\n%s", append(a, said.text())...) }, "come to its init").Sub(began)
}

// initramfs is a cpio archive of one program.
func initramfs(t *testing.T, init []byte) []byte {
	t.Helper()
	var a cpio.Archive
	a.Add("init", cpio.File|0o755, 0, 0, init)
	b, err := a.Gzip()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// machine is a machine's memory as its kernel counts it.
func (m memory) machine(size vmSize) string {
	i := m.Meminfo
	var out strings.Builder
	fmt.Fprintf(&out, "| memory of a machine of %d MiB with the app | MiB |\n|---|---|\n", size.memoryMiB)
	for _, r := range []struct {
		name string
		kib  int64
	}{
		{"the kernel's before it counts (text, page structures)", int64(size.memoryMiB)<<10 - i["MemTotal"]},
		{"**used: MemTotal - MemAvailable**", i["MemTotal"] - i["MemAvailable"]},
		{"of it: programs, in no file", i["AnonPages"]},
		{"of it: files in memory (tmpfs)", i["Shmem"]},
		{"of it: slabs that cannot be given back", i["SUnreclaim"]},
		{"of it: page tables and kernel stacks", i["PageTables"] + i["KernelStack"]},
		{"of it: per processor", i["Percpu"]},
		{"of it: vmalloc", i["VmallocUsed"]},
	} {
		fmt.Fprintf(&out, "| %s | %s |\n", r.name, mib(r.kib))
	}
	return out.String()
}

// sizes are those of the image's files.
func sizes(t *testing.T, img *image.Image) string {
	t.Helper()
	var out strings.Builder
	out.WriteString("| file of the image | MB (10^6) |\n|---|---|\n")
	for _, f := range []string{img.Meta.Rootfs, img.Meta.Kernel, img.Meta.Initrd, img.Meta.BIOS} {
		st, err := os.Stat(filepath.Join(img.Dir, f))
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&out, "| %s %s | %.1f |\n", img.Name, f, float64(st.Size())/1e6)
	}
	return out.String()
}
