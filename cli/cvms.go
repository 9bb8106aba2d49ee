package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/confidential-cloud/phala/api/cloudapi"
	"github.com/confidential-cloud/phala/cvm"
)

func (a *app) cvmsCmd() *cobra.Command {
	return a.group("cvms", "Manage CVMs", a.watchable(a.cvmsListCmd()), a.watchable(a.cvmsGetCmd()),
		a.powerCmd("start", "Start a stopped CVM", cloudapi.StatusRunning, (*cloudapi.Client).Start),
		a.powerCmd("stop", "Stop a running CVM; its volumes stay", cloudapi.StatusStopped, (*cloudapi.Client).Shutdown),
		a.powerCmd("restart", "Restart a CVM", cloudapi.StatusRunning, (*cloudapi.Client).Restart),
		a.cvmsDeleteCmd(), a.logsOf("logs [cvm]", "Fetch logs from a CVM"), a.serialLogsCmd(), a.attestationCmd(),
		a.resizeCmd(), a.replicateCmd(), a.deviceAllowlistCmd(), a.nodeListing("list-nodes"), a.runtimeConfigCmd(), a.cvmsCreateCmd(), a.cvmsUpgradeCmd())
}

func (a *app) cvmsListCmd() *cobra.Command {
	var f listFlags
	c := &cobra.Command{Use: "list", Aliases: []string{"ls"}, Short: "List CVMs", Args: args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			if err := f.check(); err != nil {
				return err
			}
			s, err := a.loggedIn()
			if err != nil {
				return err
			}
			all, err := s.api.CVMs(c.Context())
			if err != nil {
				return a.explain(s, err)
			}
			var items []cloudapi.CVMInfo
			for _, v := range all {
				if f.matches(v) {
					items = append(items, v)
				}
			}
			total := len(items)
			if items, err = cut(&paged{f.page, f.pageSize}, items); err != nil {
				return err
			}
			if shown := (f.page-1)*f.pageSize + len(items); shown < total && !a.json {
				defer a.say("%d of %d shown (--page %d shows the next)", len(items), total, f.page+1)
			}
			return printList(a, items, "no CVMs (phala deploy makes one)", []string{"NAME", "STATUS", "TYPE", "APP ID", "URL"},
				func(v cloudapi.CVMInfo) []string {
					return []string{v.Name, statusText(v), str(v.Resource.InstanceType), str(v.AppID), urlOf(v)}
				})
		}}
	f.add(c)
	return c
}

// matches applies the filters to one CVM.
func (f *listFlags) matches(v cloudapi.CVMInfo) bool {
	hit := f.search == ""
	for _, s := range []string{v.Name, str(v.AppID), str(v.VMUUID), str(v.InstanceID)} {
		hit = hit || strings.Contains(s, f.search)
	}
	node, region, image := "", "", ""
	if v.NodeInfo != nil {
		node, region = str(v.NodeInfo.Name), str(v.NodeInfo.Region)
	}
	if v.OS != nil {
		image = str(v.OS.Name)
	}
	for _, p := range []struct{ want, have string }{{f.node, node}, {f.region, region}, {f.baseImage, image},
		{f.instanceType, str(v.Resource.InstanceType)}, {f.kms, str(v.KMSType)}} {
		hit = hit && (p.want == "" || p.want == p.have)
	}
	if f.listed || f.noListed {
		hit = hit && v.Listed == f.listed
	}
	return hit && (len(f.statuses) == 0 || slices.Contains(f.statuses, v.Status))
}

func statusText(v cloudapi.CVMInfo) string {
	if v.Status != cloudapi.StatusRunning && v.BootProgress != "" {
		return v.Status + " (" + v.BootProgress + ")"
	}
	return v.Status
}

func urlOf(v cloudapi.CVMInfo) string {
	if len(v.Endpoints) == 0 {
		return ""
	}
	return v.Endpoints[0].App
}

func (a *app) cvmsGetCmd() *cobra.Command {
	return &cobra.Command{Use: "get [cvm]", Short: "Show one CVM", Args: args(cobra.MaximumNArgs(1)),
		RunE: func(c *cobra.Command, as []string) error {
			return a.withCVM(c.Context(), as, func(ctx context.Context, s *session, id string) error {
				v, err := s.api.CVM(ctx, id)
				if err != nil {
					return err
				}
				if a.json {
					return a.printJSON(v)
				}
				a.printCVM(v)
				return nil
			})
		}}
}

func (a *app) printCVM(v cloudapi.CVMDetail) {
	node := ""
	if v.NodeInfo != nil {
		node = str(v.NodeInfo.Name)
	}
	if v.Simulated {
		node += "  (SIMULATED TEE: no hardware protects this CVM)"
	}
	env := "none"
	if v.HasEnv {
		env = fmt.Sprintf("encrypted, signed by the owner (counter %d)", v.EnvCounter)
		if !v.EnvSigned {
			env = "encrypted, UNSIGNED ENV"
		}
	}
	size := num(v.Resource.VCPU) + " vCPU, "
	if v.Resource.MemoryInGB != nil {
		size += fmt.Sprintf("%g GB memory, ", *v.Resource.MemoryInGB)
	}
	fields := []field{{"Name", v.Name}, {"Status", statusText(v.CVMInfo)}, {"App ID", str(v.AppID)}, {"UUID", str(v.VMUUID)},
		{"Instance ID", str(v.InstanceID)}, {"Compose hash", str(v.ComposeHash)}, {"Size", size + num(v.Resource.DiskInGB) + " GB disk"},
		{"Type", str(v.Resource.InstanceType)}, {"Node", node}, {"Environment", env}, {"Created", v.CreatedAt}}
	for _, e := range v.Endpoints {
		fields = append(fields, field{"URL", e.App})
	}
	a.printFields(fields)
	if v.Error != nil {
		a.say("%s", a.bad(v.Error.Message))
		a.showReason(v.Error)
	}
}

// showReason explains why a CVM is not running.
func (a *app) showReason(e *cloudapi.CVMError) {
	if e.Stage != "" {
		a.say("  at:  %s", e.Stage)
	}
	if t := reasonText(e.Reason); t != "" {
		a.say("  why: %s (%s)", t, e.Reason)
	} else if e.Reason != "" {
		a.say("  why: %s", e.Reason)
	}
	if e.Fix != "" {
		a.say("  fix: %s", e.Fix)
	}
}

type powerCall func(*cloudapi.Client, context.Context, string) (cloudapi.VM, error)

func (a *app) powerCmd(verb, short, want string, call powerCall) *cobra.Command {
	var noWait bool
	c := &cobra.Command{Use: verb + " [cvm]", Short: short, Args: args(cobra.MaximumNArgs(1)),
		RunE: func(c *cobra.Command, as []string) error {
			return a.withCVM(c.Context(), as, func(ctx context.Context, s *session, id string) error {
				vm, err := call(s.api, ctx, id)
				if err != nil {
					return err
				}
				status := vm.Status
				if !noWait {
					if status, err = a.follow(ctx, s, id, vm.EventSeq, verb+" "+vm.Name, want); err != nil {
						return err
					}
				}
				if a.json {
					return a.printJSON(map[string]any{"name": vm.Name, "app_id": vm.AppID, "vm_uuid": vm.VMUUID, "status": status})
				}
				a.printf("%s %s\n", vm.Name, status)
				return nil
			})
		}}
	c.Flags().BoolVar(&noWait, "no-wait", false, "return at once")
	return c
}

// An API that went away is waited for, about a minute, once it has accepted what is
// followed: the work goes on without it, or when it is back.
const (
	apiPause = time.Second
	apiTries = 60
)

// patiently repeats fn while the API does not answer.
func (a *app) patiently(ctx context.Context, st *steps, fn func() error) error {
	tick := time.NewTicker(apiPause)
	defer tick.Stop()
	for n := 0; ; n++ {
		err := fn()
		if cvm.CodeOf(err) != cvm.Unavailable || ctx.Err() != nil || n >= apiTries {
			return err
		}
		st.news("the cloud API went away; waiting for it")
		select {
		case <-ctx.Done():
			return err
		case <-tick.C:
		}
	}
}

// follow shows a CVM's events until it rests, and fails unless it rests as wanted.
func (a *app) follow(ctx context.Context, s *session, id string, after int64, what string, want ...string) (string, error) {
	st := a.steps()
	st.start("%s", what)
	var done cloudapi.Done
	err := a.patiently(ctx, st, func() (err error) {
		done, err = s.api.Progress(ctx, id, after, func(e cloudapi.Event) {
			after = max(after, e.Seq)
			a.showEvent(st, e)
		})
		return err
	})
	if err != nil {
		st.fail()
		return "", err
	}
	if slices.Contains(want, done.Status) && done.Error == nil {
		st.ok("")
		return done.Status, nil
	}
	st.fail()
	return done.Status, notAsWanted(done, want[0])
}

func notAsWanted(done cloudapi.Done, want string) error {
	e := cvm.Errorf(cvm.Precondition, "the CVM is %s, not %s", done.Status, want)
	if done.Error == nil {
		return e.WithFix("phala logs --serial shows its console")
	}
	e.Message += ": " + done.Error.Message
	if done.Error.Stage != "" {
		e.Message += " (at " + done.Error.Stage + ")"
	}
	return e.WithReason(done.Error.Reason).WithFix(first(done.Error.Fix, "phala logs --serial shows its console"))
}

func (a *app) showEvent(st *steps, e cloudapi.Event) {
	switch e.Kind {
	case cloudapi.EventProgress:
		st.start("boot %s", e.Message)
	case cloudapi.EventError:
		st.fail()
		if e.Error != nil {
			a.say("%s", a.bad(e.Error.Message))
		}
	case cloudapi.EventRetry:
		st.news("%s", e.Message)
	case cloudapi.EventStatus, cloudapi.EventSchedule:
		if e.Status == cloudapi.StatusFailed {
			return // its error was an event of its own
		}
		st.news("%s", first(e.Message, e.Status))
	}
}

func (a *app) cvmsDeleteCmd() *cobra.Command {
	var yes bool
	var volumes string
	c := &cobra.Command{Use: "delete [cvm]", Aliases: []string{"rm"}, Short: "Delete a CVM",
		Long: "Delete a CVM. Its volumes are kept or deleted as --volumes says. Kept volumes stay on\nthe node, encrypted, under the CVM's UUID; a new CVM does not open them by itself.\nThe app's contract stays on chain.",
		Args: args(cobra.MaximumNArgs(1)),
		RunE: func(c *cobra.Command, as []string) error {
			if volumes != "" && volumes != "keep" && volumes != "delete" {
				return usage("--volumes %q is neither keep nor delete", volumes)
			}
			return a.withCVM(c.Context(), as, func(ctx context.Context, s *session, id string) error {
				return a.deleteCVM(ctx, s, id, volumes, yes)
			})
		}}
	c.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	c.Flags().BoolVarP(&yes, "force", "f", false, "do not ask")
	c.Flags().StringVar(&volumes, "volumes", "", "keep or delete; asked for on a terminal, keep with --yes")
	return c
}

func (a *app) deleteCVM(ctx context.Context, s *session, id, volumes string, yes bool) error {
	v, err := s.api.CVM(ctx, id)
	if err != nil {
		return err
	}
	if !yes && !a.TTY {
		return cvm.Errorf(cvm.Invalid, "deleting %s needs a yes, and there is no terminal to ask at", v.Name).
			WithFix("--yes, and --volumes delete if its data may go too (the default keeps it)")
	}
	if volumes == "" && !yes {
		answer, err := a.ask("Delete the data in the volumes of " + v.Name + " too? [keep/delete] (keep) ")
		if err != nil {
			return err
		}
		if answer != "" && answer != "keep" && answer != "delete" {
			return usage("%q is neither keep nor delete; nothing was changed", answer)
		}
		volumes = answer
	}
	volumes = first(volumes, "keep")
	fate := "its volumes stay on the node, encrypted (a new CVM does not open them by itself)"
	if volumes == "delete" {
		fate = "its volumes are DELETED for good"
	}
	if err := a.confirm(yes, "--yes", fmt.Sprintf("Delete CVM %s (app %s); %s. Go on?", v.Name, str(v.AppID), fate)); err != nil {
		return err
	}
	events, err := s.api.Events(ctx, id, 0)
	if err != nil {
		return err
	}
	var after int64
	if len(events) > 0 {
		after = events[len(events)-1].Seq
	}
	if err := s.api.Delete(ctx, id, volumes); err != nil {
		return err
	}
	// The progress stream may end because the CVM is gone before we ask.
	if _, err := a.follow(ctx, s, first(str(v.VMUUID), id), after, "deleting "+v.Name, cloudapi.StatusDeleted); err != nil && cvm.CodeOf(err) != cvm.NotFound {
		return err
	}
	if a.json {
		return a.printJSON(map[string]any{"name": v.Name, "app_id": v.AppID, "vm_uuid": v.VMUUID, "status": "deleted", "volumes": volumes})
	}
	a.say("%s", a.good("deleted "+v.Name+"; "+fate))
	return nil
}

func (a *app) attestationCmd() *cobra.Command {
	return &cobra.Command{Use: "attestation [cvm]", Short: "Show a CVM's attestation as the cloud relays it (phala verify checks it)", Args: args(cobra.MaximumNArgs(1)),
		RunE: func(c *cobra.Command, as []string) error {
			return a.withCVM(c.Context(), as, func(ctx context.Context, s *session, id string) error {
				at, err := s.api.Attestation(ctx, id, "")
				if err != nil {
					return err
				}
				if a.json {
					return a.printJSON(at)
				}
				if !at.IsOnline {
					return cvm.Errorf(cvm.Precondition, "%s does not run: %s", id, first(str(at.Error), "no evidence without it")).WithFix("phala cvms start " + id)
				}
				a.say("%s", a.warn("relayed by the cloud, proves nothing by itself: phala verify "+id+" checks it"))
				if at.Simulated {
					a.say("%s", a.warn("SIMULATED TEE: no hardware protects this CVM"))
				}
				if t := at.TCBInfo; t != nil {
					a.printFields([]field{{"MRTD", t.MRTD}, {"RTMR0", t.RTMR0}, {"RTMR1", t.RTMR1}, {"RTMR2", t.RTMR2}, {"RTMR3", t.RTMR3}})
					for _, e := range t.EventLog {
						if e.IMR == 3 {
							a.printf("  %-20s %s\n", e.Event, e.EventPayload)
						}
					}
				}
				return nil
			})
		}}
}

func (a *app) psCmd() *cobra.Command {
	return &cobra.Command{Use: "ps [cvm]", Short: "List the containers of a CVM", Args: args(cobra.MaximumNArgs(1)),
		RunE: func(c *cobra.Command, as []string) error {
			return a.withCVM(c.Context(), as, func(ctx context.Context, s *session, id string) error {
				comp, err := s.api.Containers(ctx, id)
				if err != nil {
					return err
				}
				if !comp.IsOnline {
					return cvm.Errorf(cvm.Precondition, "%s: %s", id, first(str(comp.Error), "it does not run")).WithFix("phala cvms get " + id)
				}
				err = printList(a, comp.Containers, "no containers", []string{"CONTAINER", "IMAGE", "STATE", "STATUS"},
					func(k cloudapi.Container) []string {
						return []string{strings.TrimPrefix(strings.Join(k.Names, ","), "/"), k.Image, k.State, k.Status}
					})
				for _, i := range comp.Images {
					if !a.json && !i.Pinned && !i.Built {
						a.say("%s: %s is named by a tag, so the compose hash does not say what runs; pin it by digest (image@sha256:...)", i.Service, i.Image)
					}
				}
				return err
			})
		}}
}

// composeOf reads the app-compose document of a CVM's detail, as far as an update
// needs it.
func composeOf(v cloudapi.CVMDetail) (out struct {
	AllowedEnvs []string `json:"allowed_envs"`
	StorageFS   string   `json:"storage_fs"`
	SecureTime  *bool    `json:"secure_time"`
	PreLaunch   string   `json:"pre_launch_script"`
	PublicLogs  *bool    `json:"public_logs"`
	PublicSys   *bool    `json:"public_sysinfo"`
	Compose     string   `json:"docker_compose_file"`
}, err error) {
	b, err := json.Marshal(v.ComposeFile)
	if err != nil {
		return out, err
	}
	var text string
	if json.Unmarshal(b, &text) == nil { // the contract allows the document as a string
		b = []byte(text)
	}
	return out, json.Unmarshal(b, &out)
}
