package verify

import (
	_ "embed"
	"encoding/hex"
	"fmt"
	"html/template"
	"io"
	"strings"

	"github.com/confidential-cloud/phala/attest/claim"
)

//go:embed report.html
var page string

// node is one station of the picture of the chain.
type node struct {
	X           int
	Label, Sub  string
	State       string // ok, bad
	Icon        string
	Last        bool
	SectionLink string
}

type view struct {
	*Report
	Nodes                          []node
	Width                          int
	Passed, Failed, Skipped, Notes int
	Simulated                      bool
	Facts                          []fact
}

type fact struct{ Name, Value string }

// WriteHTML writes the report as one page that needs nothing else: no script, no
// network. Everything that comes from outside is escaped by html/template.
func (r *Report) WriteHTML(w io.Writer) error {
	t, err := template.New("report").Funcs(template.FuncMap{
		"state": func(c claim.Check) string {
			switch {
			case c.Verdict == claim.Passed:
				return "ok"
			case !c.Required:
				return "note"
			case c.Verdict == claim.Skipped:
				return "skip"
			}
			return "bad"
		},
		"passed": func(s Section) string {
			n := 0
			for _, c := range s.Checks {
				if c.Verdict == claim.Passed {
					n++
				}
			}
			return fmt.Sprintf("%d of %d", n, len(s.Checks))
		},
	}).Parse(page)
	if err != nil {
		return fmt.Errorf("report template: %w", err)
	}
	v := view{Report: r, Nodes: r.nodes(), Facts: r.facts()}
	v.Width = 140*len(v.Nodes) + 20
	v.Passed, v.Failed, v.Skipped, v.Notes = r.Counts()
	for _, b := range r.Banners {
		v.Simulated = v.Simulated || b == BannerSimulated
	}
	return t.Execute(w, v)
}

func (r *Report) nodes() []node {
	ok := func(ids ...string) string {
		for _, s := range r.Sections {
			for _, id := range ids {
				if s.ID == id && !s.OK() {
					return "bad"
				}
			}
		}
		return "ok"
	}
	list := []node{
		{Label: "You", Sub: "this computer", State: "ok", Icon: "you", SectionLink: "connection"},
		{Label: "TLS key", Sub: "of the address", State: ok("connection"), Icon: "key", SectionLink: "connection"},
		{Label: "Gateway", Sub: "in its own TEE", State: ok("gateway.evidence", "gateway.identity"), Icon: "gate", SectionLink: "gateway.evidence"},
		{Label: "App", Sub: "measured code", State: ok("app.identity"), Icon: "app", SectionLink: "app.identity"},
		{Label: "Hardware", Sub: r.platform(), State: ok("app.evidence"), Icon: "chip", SectionLink: "app.evidence"},
		{Label: "Rules", Sub: "on chain", State: r.part("governance."), Icon: "chain", SectionLink: "app.decision"},
		{Label: "Ledger", Sub: "public record", State: r.part("ledger."), Icon: "log", SectionLink: "app.decision"},
	}
	for i := range list {
		list[i].X = 80 + 140*i
		list[i].Last = i == len(list)-1
	}
	return list
}

// part is the state of all checks whose names begin with prefix; having none is bad.
func (r *Report) part(prefix string) string {
	state := "bad"
	for _, s := range r.Sections {
		for _, c := range s.Checks {
			if !strings.HasPrefix(c.Name, prefix) || !c.Required {
				continue
			}
			if c.Verdict != claim.Passed {
				return "bad"
			}
			state = "ok"
		}
	}
	return state
}

func (r *Report) platform() string {
	if r.App.Claims == nil {
		return "unknown"
	}
	return r.App.Claims.Platform.String()
}

// facts are what a person may want to copy. They come from verified claims.
func (r *Report) facts() []fact {
	c := r.App.Claims
	if c == nil {
		return nil
	}
	f := []fact{
		{"App", c.AppID.String()}, {"Instance", c.InstanceID.String()}, {"Compose hash", c.ComposeHash.String()},
		{"OS image", c.OSImageHash.String()}, {"Device", c.DeviceID.String()}, {"TCB", c.TCB.Status}, {"Phase of the boot", string(c.Phase)},
	}
	if s := c.SNP; s != nil {
		f = append(f, fact{"Evidence", "sev-snp, " + s.Product}, fact{"Launch digest", s.Measurement.String()},
			fact{"HOST_DATA", hex.EncodeToString(s.HostData[:])}, fact{"REPORT_ID", hex.EncodeToString(s.ReportID[:])})
	} else {
		f = append(f, fact{"MRTD", c.MRTD.String()}, fact{"RTMR0", c.RTMR[0].String()}, fact{"RTMR1", c.RTMR[1].String()},
			fact{"RTMR2", c.RTMR[2].String()}, fact{"RTMR3", c.RTMR[3].String()})
	}
	f = append(f, fact{"mr_aggregated at boot", hex.EncodeToString(c.MRBoot[:])}, fact{"Root key (sha256)", c.RootSPKI})
	if v := r.App.View; v != nil {
		f = append(f, fact{"Decided by", fmt.Sprintf("%s on chain %d", v.Contract, v.ChainID)},
			fact{"At blocks", fmt.Sprintf("final %d %s, head %d %s", v.Final.Number, v.Final.Hash, v.Head.Number, v.Head.Hash)})
	}
	if r.App.Leaf != nil {
		f = append(f, fact{"Ledger entry", fmt.Sprint(r.App.LeafIndex)})
	}
	return f
}
