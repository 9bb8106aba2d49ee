package cli

import (
	"context"
	"encoding/hex"
	"strings"

	"github.com/spf13/cobra"

	"github.com/confidential-cloud/phala/api/cloudapi"
	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/governance/ethereum"
	"github.com/confidential-cloud/phala/verify"
)

// deviceFlags are the flags of allow-devices.
type deviceFlags struct {
	rpc, trust, privateKey string
	wait, enable, disable  bool
}

func (f *deviceFlags) add(c *cobra.Command, writes bool) {
	s := c.Flags()
	s.StringVar(&f.rpc, "rpc-url", "", "RPC URL of the chain (default: the trust profile's)")
	s.StringVar(&f.trust, "trust", "", "trust profile (default: the login's)")
	if !writes {
		return
	}
	s.BoolVar(&f.wait, "wait", false, "wait until it is final (always done)")
	s.StringVar(&f.privateKey, "private-key", "", "")
	_, _ = s.MarkHidden("private-key"), s.MarkHidden("wait")
}

func (a *app) allowDevicesCmd() *cobra.Command {
	return a.group("allow-devices", "The machines an app may run on, in its contract", a.devicesListCmd(),
		a.devicesChangeCmd("add", "Allow a machine, by device id or node name", ethereum.AllowDevice),
		a.devicesChangeCmd("remove", "Take a machine back", ethereum.DenyDevice),
		a.anyDeviceCmd("allow-any", "Let the app run on every machine (--enable), or on the listed ones only (--disable)"),
		a.anyDeviceCmd("disallow-any", "Let the app run on the listed machines only"),
		a.anyDeviceCmd("toggle-allow-any", "Change over between the two, or --enable, --disable"))
}

// onChainApp is an app that a command changes or reads on chain.
type onChainApp struct {
	s     *session
	trust *verify.Profile
	id    cvm.AppID
}

// onChainApp finds the app: an app id is taken as it is, anything else the cloud is
// asked for. The chain is the trust profile's.
func (a *app) onChainApp(ctx context.Context, f *deviceFlags, name string) (o onChainApp, err error) {
	if f.privateKey != "" {
		return o, usage("--private-key is not taken: other users of this machine can read arguments\nfix: phala wallet import FILE")
	}
	if o.s, err = a.session(); err != nil {
		return o, err
	}
	if o.trust, _, err = a.trust(o.s, f.trust); err != nil {
		return o, err
	}
	if o.id, err = cvm.ParseAppID(strings.TrimPrefix(name, "app_")); err == nil {
		return o, nil
	}
	if o.s, err = a.loggedIn(); err != nil {
		return o, err
	}
	v, err := o.s.api.CVM(ctx, name)
	if err != nil {
		return o, a.explain(o.s, err)
	}
	o.id, err = cvm.ParseAppID(str(v.AppID))
	return o, err
}

// device is a machine in a list.
type device struct {
	DeviceID string `json:"device_id"`
	NodeName string `json:"node_name"`
	Allowed  bool   `json:"allowed_onchain"`
}

// nodeDevices are the cloud's nodes by device id; without a login there are none.
func (o *onChainApp) nodeDevices(ctx context.Context) (out []cloudapi.AvailableNode, err error) {
	if o.s.api.Key == "" {
		return nil, nil
	}
	all, err := o.s.api.Nodes(ctx)
	for _, n := range all.Nodes {
		if n.DeviceID != nil {
			out = append(out, n)
		}
	}
	return out, err
}

func (a *app) devicesListCmd() *cobra.Command {
	var f deviceFlags
	c := &cobra.Command{Use: "list <cvm>", Aliases: []string{"ls"}, Short: "List the machines an app may run on", Args: args(cobra.ExactArgs(1)), ValidArgsFunction: a.completing(a.cvmNames),
		RunE: func(c *cobra.Command, as []string) error {
			o, err := a.onChainApp(c.Context(), &f, as[0])
			if err != nil {
				return err
			}
			view, items, err := a.readDevices(c.Context(), &o, f.rpc)
			if err != nil {
				return a.explain(o.s, err)
			}
			if a.json {
				return a.printJSON(map[string]any{"app_id": o.id.String(), "chain_id": o.trust.Chain.ID, "owner": view.Owner.Hex(), "allow_any_device": view.AnyDevice, "devices": items})
			}
			if view.AnyDevice {
				a.say("every machine may run app %s (chain %d)", o.id, o.trust.Chain.ID)
			}
			return printList(a, items, "the cloud knows no machines", []string{"DEVICE", "NODE", "ALLOWED"},
				func(d device) []string { return []string{d.DeviceID, d.NodeName, yesNo(d.Allowed)} })
		}}
	f.add(c, false)
	return c
}

// readDevices asks the chain about every machine that the cloud or its list names.
func (a *app) readDevices(ctx context.Context, o *onChainApp, rpc string) (view ethereum.AppView, items []device, err error) {
	nodes, err := o.nodeDevices(ctx)
	if err != nil {
		return view, nil, err
	}
	var ids []cvm.DeviceID
	names := map[cvm.DeviceID]string{}
	add := func(text, name string) {
		id, err := cvm.ParseDeviceID(strings.ToLower(text))
		if _, seen := names[id]; err != nil || seen {
			return
		}
		names[id] = name
		ids = append(ids, id)
	}
	for _, n := range nodes {
		add(*n.DeviceID, n.Name)
	}
	if o.s.api.Key != "" { // a machine that left the cloud may still be allowed
		var list deviceAllowlist
		if err := o.s.api.Do(ctx, "GET", "/apps/"+o.id.String()+"/device-allowlist", nil, &list); err == nil {
			for _, d := range list.Devices {
				add(d.DeviceID, str(d.NodeName))
			}
		}
	}
	if view, err = a.readApp(ctx, o.trust, rpc, o.id, ids, nil); err != nil {
		return view, nil, err
	}
	for _, id := range ids {
		items = append(items, device{DeviceID: "0x" + hex.EncodeToString(id[:]), NodeName: names[id], Allowed: view.Devices[id]})
	}
	return view, items, nil
}

func (a *app) devicesChangeCmd(verb, short string, op func(cvm.AppID, cvm.DeviceID) ethereum.Op) *cobra.Command {
	var f deviceFlags
	c := &cobra.Command{Use: verb + " <cvm> <device-id>...", Short: short, Args: args(cobra.MinimumNArgs(2)), ValidArgsFunction: a.completing(a.cvmNames),
		RunE: func(c *cobra.Command, as []string) error {
			o, err := a.onChainApp(c.Context(), &f, as[0])
			if err != nil {
				return err
			}
			var ops []ethereum.Op
			var items []device
			for _, name := range as[1:] {
				id, err := o.device(c.Context(), name)
				if err != nil {
					return a.explain(o.s, err)
				}
				ops = append(ops, op(o.id, id))
				items = append(items, device{DeviceID: "0x" + hex.EncodeToString(id[:]), Allowed: verb == "add"})
			}
			if _, err := a.allowOps(c.Context(), o.s, a.steps(), o.trust, f.rpc, ops); err != nil {
				return err
			}
			return printSpread(a, items, "", []string{"DEVICE", "ALLOWED"}, func(d device) []string { return []string{d.DeviceID, yesNo(d.Allowed)} })
		}}
	f.add(c, true)
	return c
}

// device reads a device id, or the name of a node.
func (o *onChainApp) device(ctx context.Context, name string) (cvm.DeviceID, error) {
	if id, err := cvm.ParseDeviceID(strings.ToLower(name)); err == nil {
		return id, nil
	}
	nodes, err := o.nodeDevices(ctx)
	if err != nil {
		return cvm.DeviceID{}, err
	}
	for _, n := range nodes {
		if n.Name == name {
			return cvm.ParseDeviceID(strings.ToLower(*n.DeviceID))
		}
	}
	return cvm.DeviceID{}, cvm.Errorf(cvm.NotFound, "%q is neither a device id (64 hex digits) nor a node here", name).WithFix("phala nodes lists them")
}

func (a *app) anyDeviceCmd(verb, short string) *cobra.Command {
	var f deviceFlags
	c := &cobra.Command{Use: verb + " <cvm>", Short: short, Args: args(cobra.ExactArgs(1)), ValidArgsFunction: a.completing(a.cvmNames),
		RunE: func(c *cobra.Command, as []string) error {
			want := f.enable
			switch {
			case f.enable && f.disable:
				return usage("--enable and --disable exclude each other")
			case verb == "allow-any" && !f.enable && !f.disable:
				return usage("say --enable or --disable")
			}
			o, err := a.onChainApp(c.Context(), &f, as[0])
			if err != nil {
				return err
			}
			if verb == "toggle-allow-any" && !f.enable && !f.disable {
				now, err := a.readApp(c.Context(), o.trust, f.rpc, o.id, nil, nil)
				if err != nil {
					return err
				}
				want = !now.AnyDevice
			}
			tx, err := a.allowOps(c.Context(), o.s, a.steps(), o.trust, f.rpc, []ethereum.Op{ethereum.SetAllowAnyDevice(o.id, want)})
			if err != nil {
				return err
			}
			text := "app " + o.id.String() + " may run on the listed machines only"
			if want {
				text = "app " + o.id.String() + " may run on every machine"
			}
			return a.done(map[string]any{"app_id": o.id.String(), "allow_any_device": want, "transaction": tx}, text)
		}}
	f.add(c, true)
	if verb != "disallow-any" {
		c.Flags().BoolVar(&f.enable, "enable", false, "every machine may run the app")
		c.Flags().BoolVar(&f.disable, "disable", false, "only the listed ones")
	}
	return c
}

// deviceAllowlist is GET /apps/{app}/device-allowlist: what the cloud says.
type deviceAllowlist struct {
	OnChain  bool    `json:"is_onchain_kms"`
	AllowAny *bool   `json:"allow_any_device"`
	ChainID  *uint64 `json:"chain_id"`
	Contract *string `json:"app_contract_address"`
	Devices  []struct {
		DeviceID string  `json:"device_id"`
		NodeName *string `json:"node_name"`
		CVMIDs   []int64 `json:"cvm_ids"`
		Allowed  bool    `json:"allowed_onchain"`
		Status   string  `json:"status"`
	} `json:"devices"`
}

func (a *app) deviceAllowlistCmd() *cobra.Command {
	return &cobra.Command{Use: "device-allowlist [cvm]", Short: "Show what the cloud says about the app's machines (allow-devices list asks the chain)", Args: args(cobra.MaximumNArgs(1)),
		RunE: func(c *cobra.Command, as []string) error {
			return a.withCVM(c.Context(), as, func(ctx context.Context, s *session, id string) error {
				v, err := s.api.CVM(ctx, id)
				if err != nil {
					return err
				}
				var l deviceAllowlist
				if err := s.api.Do(ctx, "GET", "/apps/"+str(v.AppID)+"/device-allowlist", nil, &l); err != nil {
					return err
				}
				if a.json {
					return a.printJSON(l)
				}
				if !l.OnChain {
					a.say("the app's KMS takes its rules from no chain")
					return nil
				}
				if l.AllowAny != nil && *l.AllowAny {
					a.say("every machine may run the app")
				}
				for _, d := range l.Devices {
					a.printf("%s  %-20s  %s\n", d.DeviceID, str(d.NodeName), d.Status)
				}
				return nil
			})
		}}
}
