package cli

import (
	"strings"

	"github.com/spf13/cobra"

	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/vmm/doctor"
)

const nodeDoctorLong = `Look at this machine as a host of confidential VMs: CPU, BIOS, microcode, kernel, KVM,
QEMU, firmware, quoting service, GPUs, disks, clock, network, limits. Nothing is changed.

Each finding has a code that stays the same (docs/ops/nodes.md lists them), a result (ok,
warn, fail, skip), what was found, and what to do. Exit code: 0 when nothing failed and
nothing warns, 5 when something warns, 1 when something failed.`

func (a *app) nodeDoctorCmd() *cobra.Command {
	var c doctor.Config
	cmd := &cobra.Command{Use: "doctor", Short: "Look for what is in the way of running confidential VMs on this machine", Long: nodeDoctorLong, Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch c.Want {
			case "", doctor.TDX, doctor.SNP, doctor.None:
			default:
				return usage("--want %q is not tdx, snp or none", c.Want)
			}
			found := doctor.Run(cmd.Context(), c)
			return a.showDoctor(found)
		}}
	f := cmd.Flags()
	f.StringVar(&c.Want, "want", "", "what the host is for: tdx, snp or none (default: what its CPU offers)")
	f.StringVar(&c.Root, "root", "/", "look at the files below this directory instead (programs and services are this machine's)")
	f.StringVar(&c.QEMU, "qemu", "", "QEMU's binary (default: the usual places)")
	f.StringVar(&c.Firmware, "firmware", "", "firmware (default: the usual places)")
	f.StringArrayVar(&c.Dirs, "dir", nil, "where VMs and images are kept (may be repeated; default /var/lib)")
	f.IntSliceVar(&c.Ports, "port", []int{8720}, "TCP ports that should be free")
	f.StringVar(&c.QGS, "qgs", "", "quote generation service: vsock:PORT or a socket (default: both usual ones)")
	f.StringVar(&c.PCCS, "pccs", "", "URL of the PCCS (default: that of sgx_default_qcnl.conf)")
	f.IntVar(&c.UIDBase, "uid-base", 0, "first user id of VMs")
	f.IntVar(&c.UIDCount, "uid-count", 1000, "how many")
	f.BoolVar(&c.GPUs, "gpus", false, "GPUs are to be passed through")
	return cmd
}

func (a *app) showDoctor(found []doctor.Finding) error {
	worst := doctor.Worst(found)
	if a.json {
		if err := writeJSON(a.Stdout, map[string]any{"success": worst != doctor.Fail, "result": worst, "findings": found}); err != nil {
			return err
		}
	} else {
		for _, f := range found {
			mark := map[doctor.Result]string{doctor.OK: a.good(""), doctor.Warn: a.warn(""), doctor.Fail: a.bad("")}[f.Result]
			a.printf("%s%-16s %s: %s\n", first(mark, "- "), f.Code, f.Name, strings.ReplaceAll(f.Found, "\n", " "))
			if f.Remedy != "" {
				a.printf("    %s\n", f.Remedy)
			}
		}
	}
	a.reported = true
	switch worst {
	case doctor.Fail:
		return cvm.Errorf(cvm.Internal, "a check failed")
	case doctor.Warn:
		return cvm.Errorf(cvm.Precondition, "a check warns")
	}
	return nil
}
