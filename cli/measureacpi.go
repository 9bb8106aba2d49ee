package cli

import (
	"errors"
	"io/fs"
	"slices"

	"github.com/spf13/cobra"

	"github.com/confidential-cloud/phala/attest/eventlog"
	"github.com/confidential-cloud/phala/attest/measure"
	"github.com/confidential-cloud/phala/cvm"
)

const measureACPILong = `Read the ACPI tables' digests from the firmware's log (CCEL) of a real boot, and print
the entry that lists them for the VM's shape, or add it to a list (--add acpi.json).

The host makes these tables, and the guest's kernel runs their code: list only what a host
of your own measured, once per shape that you release the image for. In the VM, the log is
/sys/firmware/acpi/tables/data/CCEL.`

func (a *app) measureACPICmd() *cobra.Command {
	var ccel, add string
	var f shapeFlags
	c := &cobra.Command{Use: "acpi --from-ccel FILE", Short: "List the ACPI tables of a VM shape", Long: measureACPILong,
		Example: "  phala measure acpi --from-ccel ccel.bin --cpus 2 --memory 2G --qemu-version 9.2.1 --add acpi.json",
		Args:    args(cobra.NoArgs),
		RunE:    func(*cobra.Command, []string) error { return a.measureACPI(ccel, add, f) }}
	s := c.Flags()
	s.StringVar(&ccel, "from-ccel", "", "the CCEL table of a boot")
	s.StringVar(&add, "add", "", "list to add the entry to (made if it is not there)")
	f.add(s)
	return c
}

func (a *app) measureACPI(ccel, add string, f shapeFlags) error {
	if ccel == "" {
		return usage("which log? --from-ccel FILE")
	}
	b, err := readBounded(a.path(ccel), 16<<20)
	if err != nil {
		return err
	}
	events, err := eventlog.ParseCCEL(b)
	if err != nil {
		return err
	}
	d, err := eventlog.ACPIDigests(events)
	if err != nil {
		return err
	}
	c, err := f.config(cvm.ImageHash{})
	if err != nil {
		return err
	}
	if c.QEMUVersion == "" {
		return usage("which QEMU made these tables? --qemu-version 9.2.1")
	}
	e := measure.ACPI{Topology: c.Topology, Loader: d[0], RSDP: d[1], Tables: d[2]}
	list, err := a.acpiList(add)
	if err != nil {
		return err
	}
	if old, ok := measure.ACPIFor(list, e.Topology); ok && old != e {
		return cvm.Errorf(cvm.Conflict, "%s lists other tables for this VM shape (tables %s..., now %s...)", add, old.Tables.String()[:16], e.Tables.String()[:16]).
			WithFix("was the shape really the same? The same shape and QEMU version give the same tables")
	} else if !ok {
		list = append(list, e)
	}
	if err := measure.CheckACPI(list); err != nil {
		return err
	}
	out, err := measure.EncodeACPI(list)
	if err != nil {
		return err
	}
	if add != "" {
		if err := a.writeOut(add, out); err != nil {
			return err
		}
		if !a.json {
			return nil
		}
	}
	if a.json {
		return a.printJSON(map[string]any{"entry": e, "entries": len(list)})
	}
	_, err = a.Stdout.Write(out)
	return err
}

// acpiList is the list to add to; none yet is an empty one.
func (a *app) acpiList(name string) ([]measure.ACPI, error) {
	if name == "" {
		return nil, nil
	}
	b, err := readBounded(a.path(name), 8<<20)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	list, err := measure.ParseACPI(b)
	return slices.Clip(list), err
}
