package verify

import (
	"encoding/json"
	"io"
	"time"

	"github.com/confidential-cloud/phala/attest/claim"
	"github.com/confidential-cloud/phala/governance"
	"github.com/confidential-cloud/phala/ledger"
)

// Banners that a report shows above everything else.
const (
	BannerSimulated = "SIMULATED TEE: no hardware protects this app. The chain of checks is real, its root is not."
	BannerUnsigned  = "UNSIGNED ENV: nobody vouched for the app's environment; the host could have replaced it."
	BannerUnproven  = "UNPROVEN PHASE: SEV-SNP binds code and identity to the launch, and nothing that happened since; the keys went to this launch, once."
	BannerNoNonce   = "NO NONCE: the keys were released to a client that cannot prove freshness."
)

// Report is the result of a verification: every check that was made, in the order
// of the chain of trust, from the connection a client sees to the ledger.
type Report struct {
	Version  int       `json:"version"` // 1
	Target   string    `json:"target"`
	Profile  string    `json:"profile"` // name of the trust profile
	At       time.Time `json:"at"`
	Verified bool      `json:"verified"` // every required check passed
	Banners  []string  `json:"banners"`
	Sections []Section `json:"sections"`

	App     Subject `json:"app"`
	Gateway Subject `json:"gateway"`
}

// Section is one link of the chain.
type Section struct {
	ID     string        `json:"id"` // connection, gateway.evidence, gateway.identity, gateway.decision, app.…
	Title  string        `json:"title"`
	Who    string        `json:"who"`  // "connection", "gateway" or "app"
	Says   string        `json:"says"` // one sentence: what this link proves
	Checks []claim.Check `json:"checks"`
}

// OK reports whether every required check of the section passed.
func (s Section) OK() bool { return claim.OK(s.Checks) }

// Subject is what is known of a verified guest. Its fields are set as far as the
// verification came; they count only when the report is verified.
type Subject struct {
	Claims     *claim.Claims    `json:"claims,omitempty"`
	AppCompose string           `json:"app_compose,omitempty"` // exact text, hash checked
	Leaf       *ledger.Leaf     `json:"leaf,omitempty"`
	LeafIndex  int64            `json:"leaf_index"`
	View       *governance.View `json:"view,omitempty"` // of the release
	TLSKey     string           `json:"tls_key,omitempty"`
}

// finish decides: everything required passed, in every section, and no section is
// missing.
func (r *Report) finish() {
	r.Verified = len(r.Sections) == len(outline())
	for _, s := range r.Sections {
		r.Verified = r.Verified && s.OK()
	}
}

// Failures lists what keeps the report from being verified.
func (r *Report) Failures() []claim.Check {
	var out []claim.Check
	for _, s := range r.Sections {
		for _, c := range s.Checks {
			if c.Required && c.Verdict != claim.Passed {
				c.Name = s.Who + "." + c.Name
				out = append(out, c)
			}
		}
	}
	return out
}

// Counts says how many checks passed, how many required ones failed or could not
// be made, and how many others did not pass, which are for information.
func (r *Report) Counts() (passed, failed, skipped, notes int) {
	for _, s := range r.Sections {
		for _, c := range s.Checks {
			switch {
			case c.Verdict == claim.Passed:
				passed++
			case !c.Required:
				notes++
			case c.Verdict == claim.Failed:
				failed++
			default:
				skipped++
			}
		}
	}
	return passed, failed, skipped, notes
}

func (r *Report) banner(text string) {
	for _, b := range r.Banners {
		if b == text {
			return
		}
	}
	r.Banners = append(r.Banners, text)
}

// WriteJSON writes the report for machines.
func (r *Report) WriteJSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(r)
}

// outline is the chain of trust in order. Each guest has three links.
func outline() []Section {
	guest := func(who, name string) []Section {
		return []Section{
			{ID: who + ".evidence", Who: who, Title: name + ": hardware and boot", Says: "A TEE signed, for this request, what was loaded into the " + who + "'s machine, and the vendor vouches for that TEE."},
			{ID: who + ".identity", Who: who, Title: name + ": code and identity", Says: "What was measured is this code, of this app, with keys from this KMS."},
			{ID: who + ".decision", Who: who, Title: name + ": decision and record", Says: "The owner's rules on chain allowed it, then and now, and the release of its keys is in the public ledger."},
		}
	}
	s := []Section{{ID: "connection", Who: "connection", Title: "Connection", Says: "The TLS key that a client of this address talks to is the one that the gateway proves."}}
	return append(append(s, guest("gateway", "Gateway")...), guest("app", "App")...)
}
