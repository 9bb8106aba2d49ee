package cli

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/confidential-cloud/phala/api/cloudapi"
	"github.com/confidential-cloud/phala/appcompose"
)

// describe finds out what a plan changes against what runs, and what it costs.
// Measurements do not change with an update: image and size stay, and the
// app-compose is measured by its hash.
func (a *app) describe(ctx context.Context, j *job, p *plan) error {
	if p.old != nil {
		p.notes = j.stays(p.old)
		was, err := composeOf(*p.old)
		if err != nil {
			return err
		}
		var now appcompose.Document
		if err := json.Unmarshal(p.raw, &now); err != nil {
			return err
		}
		if added, gone := lineChanges(was.Compose, now.DockerComposeFile); added+gone > 0 {
			p.changes = append(p.changes, fmt.Sprintf("compose file: %s added, %s removed", plural(added, "line"), plural(gone, "line")))
		}
		if was.PreLaunch != now.PreLaunchScript {
			p.changes = append(p.changes, "pre-launch script")
		}
		if names := nameChanges(was.AllowedEnvs, now.AllowedEnvs); names != "" {
			p.changes = append(p.changes, "environment names: "+names)
		}
		for _, f := range []struct {
			name string
			was  *bool
			now  bool
		}{{"public logs", was.PublicLogs, now.PublicLogs}, {"public sysinfo", was.PublicSys, now.PublicSysinfo}} {
			if f.was != nil && *f.was != f.now {
				p.changes = append(p.changes, fmt.Sprintf("%s: %s -> %s", f.name, yesNo(*f.was), yesNo(f.now)))
			}
		}
		if p.change && len(p.changes) == 0 {
			p.changes = append(p.changes, "other fields of the app-compose")
		}
	}
	if p.size == nil {
		return nil
	}
	types, err := j.s.api.InstanceTypes(ctx)
	if err != nil {
		return nil //nolint:nilerr // a plan without its price is still a plan
	}
	for _, f := range types.Result {
		for _, t := range f.Items {
			if t.ID == *p.size {
				p.price, p.gpus = t.HourlyRate, t.GPUs
			}
		}
	}
	return nil
}

// stays says which flags have no part in an update, and what remains instead. (Sizes are
// refused: see provisionUpdate.)
func (j *job) stays(old *cloudapi.CVMDetail) (out []string) {
	note := func(flag, asked, have, how string) {
		if asked != "" && !strings.EqualFold(asked, have) {
			out = append(out, fmt.Sprintf("--%s %s has no part in an update: %s stays (%s)", flag, asked, first(have, "what it has"), how))
		}
	}
	const moves = "phala cvms replicate makes one elsewhere"
	var image, region, node string
	if old.OS != nil {
		image = str(old.OS.Name)
		if dev := old.OS.IsDev; dev != nil && (j.f.devOS && !*dev || j.f.noDevOS && *dev) {
			out = append(out, "an update does not change between production and development images: "+image+" stays")
		}
	}
	if old.NodeInfo != nil {
		region, node = str(old.NodeInfo.Region), num(old.NodeInfo.ID)
	}
	note("image", j.f.image, image, "phala api -X PATCH /cvms/ID/os-image changes it")
	note("region", j.f.region, region, moves)
	note("node-id", j.f.nodeID, node, moves)
	return out
}

// lineChanges counts the lines that are only in one of two texts.
func lineChanges(was, now string) (added, gone int) {
	count := map[string]int{}
	for _, l := range strings.Split(was, "\n") {
		count[l]++
	}
	for _, l := range strings.Split(now, "\n") {
		count[l]--
	}
	for _, n := range count {
		if n > 0 {
			gone += n
		} else {
			added -= n
		}
	}
	return added, gone
}

func nameChanges(was, now []string) string {
	var out []string
	for _, n := range now {
		if !slices.Contains(was, n) {
			out = append(out, "+"+n)
		}
	}
	for _, n := range was {
		if !slices.Contains(now, n) {
			out = append(out, "-"+n)
		}
	}
	return strings.Join(out, " ")
}

// approver is whose transaction the plan needs; "" when the chain allows it already.
func (p *plan) approver() string {
	if p.old != nil && !p.change {
		return ""
	}
	return p.owner
}

// planJSON is the answer of --dry-run --json.
type planJSON struct {
	Action      string   `json:"action"`
	Name        string   `json:"name"`
	ComposeHash string   `json:"compose_hash"`
	AppCompose  string   `json:"app_compose"`
	Owner       string   `json:"owner"`
	ChainID     uint64   `json:"chain_id"`
	Contract    string   `json:"kms_contract"`
	DeviceID    string   `json:"device_id"`
	EnvNames    []string `json:"env_names"`
	Ports       []int    `json:"ports"`
	Changed     bool     `json:"changed"`
	Changes     []string `json:"changes"`
	Notes       []string `json:"notes"` // what was asked for and has no part in it
	Price       string   `json:"hourly_rate,omitempty"`
	GPUs        int      `json:"gpus"`        // that the CVM has
	GPUsNeeded  int      `json:"gpus_needed"` // by the compose file, at least
	Approver    string   `json:"approver"`    // who must allow it on chain
	Findings    any      `json:"findings"`
}

func (p *plan) json(j *job) planJSON {
	out := planJSON{Action: p.action(), Name: j.name, ComposeHash: p.hash.String(), AppCompose: string(p.raw), Owner: p.owner,
		ChainID: p.trust.Chain.ID, Contract: p.trust.Chain.KMSContract, DeviceID: hex.EncodeToString(p.device[:]),
		EnvNames: envNames(j.env), Ports: []int{}, Changed: p.change, Findings: j.file.Lint(),
		Changes: append([]string{}, p.changes...), Notes: append([]string{}, p.notes...), Price: p.price, Approver: p.approver()}
	out.GPUs = p.gpus
	out.GPUsNeeded, _ = j.file.GPUs()
	for _, port := range j.file.Ports() {
		out.Ports = append(out.Ports, port.Published)
	}
	return out
}

func (p *plan) action() string {
	if p.old == nil {
		return "create"
	}
	return "update"
}

func (a *app) showPlan(j *job, p *plan) {
	a.say("")
	if p.old == nil {
		a.say("Plan: create CVM %s%s", j.name, maybe(" (%s)", str(p.size)))
	} else {
		a.say("Plan: update CVM %s in place (app %s)", j.name, str(p.old.AppID))
	}
	for _, s := range j.file.Services() {
		a.say("  service      %s  %s", s.Name, s.Image)
	}
	for _, port := range j.file.Ports() {
		if port.Reachable() {
			a.say("  port         %d -> %s:%d", port.Published, port.Service, port.Target)
		}
	}
	a.say("  app-compose  %s", p.hash)
	for _, c := range p.changes {
		a.say("  change       %s", c)
	}
	for _, n := range p.notes {
		a.say("%s", a.warn(n))
	}
	if p.old != nil && p.size != nil {
		a.say("  size         %s stays", *p.size)
	}
	if need, _ := j.file.GPUs(); need > 0 || p.gpus > 0 {
		a.say("  GPUs         %d needed, %s has %d", need, first(str(p.size), "the CVM"), p.gpus)
	}
	if p.price != "" {
		a.say("  price        %s per hour", p.price)
	}
	switch {
	case j.envSet && len(j.env) > 0:
		a.say("  environment  %s: encrypted to the app, signed by %s", strings.Join(envNames(j.env), ", "), p.owner)
	case p.old != nil && p.old.HasEnv:
		a.say("  environment  stays as it is")
	}
	a.say("  machine      %s%s", short(p.device.String()), maybe("  %s", p.place))
	switch {
	case p.old == nil:
		a.say("  on chain     make the app's contract with this hash (chain %d, DstackKms %s, owner %s)", p.trust.Chain.ID, p.trust.Chain.KMSContract, p.owner)
	case p.change:
		a.say("  on chain     allow this hash for app %s (chain %d)", str(p.old.AppID), p.trust.Chain.ID)
	default:
		a.say("  on chain     nothing: the app-compose is the one that runs")
	}
	a.say("")
}
