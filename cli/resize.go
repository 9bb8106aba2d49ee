package cli

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/confidential-cloud/phala/api/cloudapi"
	"github.com/confidential-cloud/phala/cvm"
)

// resizeFlags are the flags of cvms resize.
type resizeFlags struct {
	vcpu, memory, disk   int
	instanceType         string
	allowRestart         string
	yes, noWait, restart bool
}

func (a *app) resizeCmd() *cobra.Command {
	var f resizeFlags
	c := &cobra.Command{Use: "resize [cvm]", Short: "Change the size of a CVM", Args: args(cobra.MaximumNArgs(1)),
		Example: "  phala cvms resize my-app --instance-type tdx.medium --allow-restart true\n  phala cvms resize my-app --disk-size 100 -y",
		RunE: func(c *cobra.Command, as []string) error {
			if f.vcpu == 0 && f.memory == 0 && f.disk == 0 && f.instanceType == "" {
				return usage("what size? --vcpu, --memory (MB), --disk-size (GB) or --instance-type")
			}
			if f.vcpu < 0 || f.memory < 0 || f.disk < 0 {
				return usage("a size is not negative")
			}
			var err error
			if f.allowRestart != "" {
				if f.restart, err = strconv.ParseBool(f.allowRestart); err != nil {
					return usage("--allow-restart %q is neither true nor false", f.allowRestart)
				}
			}
			return a.withCVM(c.Context(), as, func(ctx context.Context, s *session, id string) error { return a.resize(ctx, s, id, &f) })
		}}
	s := c.Flags()
	s.IntVarP(&f.vcpu, "vcpu", "v", 0, "virtual CPUs")
	s.IntVarP(&f.memory, "memory", "m", 0, "memory in MB")
	s.IntVarP(&f.disk, "disk-size", "d", 0, "disk in GB; it only grows")
	s.StringVarP(&f.instanceType, "instance-type", "t", "", "instance type, instead of CPUs and memory")
	s.StringVarP(&f.allowRestart, "allow-restart", "r", "", "true or false: may the CVM restart for it (asked for on a terminal)")
	s.BoolVarP(&f.yes, "yes", "y", false, "do not ask")
	s.BoolVar(&f.noWait, "no-wait", false, "return when the cloud has accepted it")
	s.Lookup("allow-restart").NoOptDefVal = "true"
	return c
}

func (a *app) resize(ctx context.Context, s *session, id string, f *resizeFlags) error {
	v, err := s.api.CVM(ctx, id)
	if err != nil {
		return err
	}
	body := map[string]any{}
	var changes []string
	for _, n := range []struct {
		key, unit string
		now       *int
		to        int
	}{{"vcpu", "vCPU", v.Resource.VCPU, f.vcpu}, {"memory", "MB memory", memoryMB(v), f.memory}, {"disk_size", "GB disk", v.Resource.DiskInGB, f.disk}} {
		if n.to > 0 {
			body[n.key] = n.to
			changes = append(changes, fmt.Sprintf("%s -> %d %s", first(num(n.now), "?"), n.to, n.unit))
		}
	}
	if f.instanceType != "" {
		body["instance_type"] = f.instanceType
		changes = append(changes, first(str(v.Resource.InstanceType), "?")+" -> "+f.instanceType)
	}
	if f.disk > 0 && v.Resource.DiskInGB != nil && f.disk < *v.Resource.DiskInGB {
		return cvm.Errorf(cvm.Invalid, "the disk of %s has %d GB, and a disk only grows", v.Name, *v.Resource.DiskInGB)
	}
	fate := "; it may restart for it"
	if f.allowRestart != "" && !f.restart {
		fate = ", without a restart"
	}
	if err := a.confirm(f.yes, "--yes", "Resize "+v.Name+": "+strings.Join(changes, ", ")+fate+"?"); err != nil {
		return err
	}
	body["allow_restart"] = f.restart || f.allowRestart == ""
	events, err := s.api.Events(ctx, id, 0)
	if err != nil {
		return err
	}
	var after int64
	if len(events) > 0 {
		after = events[len(events)-1].Seq
	}
	ref := first(str(v.VMUUID), id)
	if err := s.api.Do(ctx, "PATCH", "/cvms/"+ref+"/resources", body, nil); err != nil {
		return err
	}
	status := v.Status
	if !f.noWait {
		if status, err = a.follow(ctx, s, ref, after, "resizing "+v.Name, cloudapi.StatusRunning, cloudapi.StatusStopped); err != nil {
			return err
		}
	}
	if a.json {
		return a.printJSON(map[string]any{"name": v.Name, "app_id": v.AppID, "vm_uuid": v.VMUUID, "status": status, "changes": changes})
	}
	a.printf("%s %s: %s\n", v.Name, status, strings.Join(changes, ", "))
	return nil
}

func memoryMB(v cloudapi.CVMDetail) *int {
	if v.Resource.MemoryInGB == nil {
		return nil
	}
	mb := int(*v.Resource.MemoryInGB * 1024)
	return &mb
}
