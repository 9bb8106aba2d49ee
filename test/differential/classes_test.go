package differential

import (
	"fmt"
	"regexp"
	"slices"
)

// Verifiers that ours is compared with.
const (
	goOracle   = "go-tdx-guest"
	jsOracle   = "dcap-qvl JS"
	wasmOracle = "dcap-qvl wasm"
)

// class is one explained kind of disagreement; docs/spec/differential.md says why
// for each id.
type class struct {
	id      string
	oracles []string
	ours    string // pattern of our refusal ("check: reason"); "" when ours accepts
	theirs  string // pattern of their refusal, where ours accepts
	status  string // pattern of "ours/theirs", where both accept with other statuses
	label   string // pattern of what was done, where the rest does not tell
}

func classes() []class {
	all, npm := []string{goOracle, jsOracle, wasmOracle}, []string{jsOracle, wasmOracle}
	js, wasm, golang := []string{jsOracle}, []string{wasmOracle}, []string{goOracle}
	return []class{
		// Ours refuses.
		{id: "quote-tail", oracles: all, ours: `^quote\.parse: .* bytes after the quote`},
		{id: "quote-lengths", oracles: npm, ours: `^quote\.parse: .*(PCK chain of|certification data of|certification type)`},
		{id: "quote-header", oracles: npm, ours: `^quote\.parse: .*reserved header bytes`},
		{id: "pem-text", oracles: all, ours: `^(pck\.chain|collateral\.parse): certificate chain: `},
		{id: "chain-anchor", oracles: wasm, ours: `^pck\.chain: (Intel SGX Root CA|I.* Root CA|Intel SGX PCK Platform CA|certificate 2|certificate 1|quote: PCK issuer|quote: certificate chain)`},
		{id: "chain-anchor", oracles: wasm, ours: `^collateral\.(chain|parse): .*(Root CA|certificate 1|the collateral's root)`},
		{id: "json-keys", oracles: all, ours: `^collateral\.parse: .*is repeated or differs only in case`},
		{id: "json-envelope", oracles: golang, ours: `^collateral\.parse: .*(want exactly the members|not 64 bytes of hex)`},
		{id: "json-fields", oracles: all, ours: `^collateral\.parse: tcbInfo: (id .* type |tdxModule, tcbEvaluationDataNumber)`},
		{id: "json-components", oracles: wasm, ours: `^collateral\.parse: tcbInfo: level \d+: want 16`},
		{id: "future", oracles: all, ours: `^crl\.fresh: .*issued in the future`},
		{id: "future", oracles: []string{goOracle, wasmOracle}, ours: `^collateral\.fresh: .*issued in the future`},
		{id: "crl-tail", oracles: all, ours: `^collateral\.parse: revocation list: \d+ bytes after it`},
		{id: "crl-signature", oracles: js, ours: `^crl\.fresh: .*revocation list of .*verification failure`},
		{id: "crl-signature", oracles: js, ours: `^collateral\.parse: revocation list: `},
		{id: "crl-signature", oracles: js, ours: `^crl\.fresh: .*expired`},
		{id: "crl-issuer", oracles: npm, ours: `^crl\.fresh: .*revocation list of .*want that of`},
		{id: "signer-name", oracles: npm, ours: `^collateral\.chain: .*is signed by`},
		{id: "pceid", oracles: npm, ours: `^collateral\.match: .*PCE`},
		{id: "qe-report-data", oracles: npm, ours: `^quote\.key: `},
		{id: "qe-vendor", oracles: all, ours: `^qe\.identity: .*enclave vendor`},
		{id: "module", oracles: npm, ours: `^tdx\.module: `},
		{id: "module-status", oracles: js, ours: `^tcb\.match: .*(the vendor revoked|unknown TCB status)`},
		{id: "platform-status", oracles: golang, ours: `^tcb\.match: .*(the vendor revoked|unknown TCB status)`},
		{id: "wasm-status", oracles: wasm, ours: `^tcb\.match: `},
		{id: "wasm-qe-identity", oracles: wasm, ours: `^qe\.identity: `},
		{id: "wasm-qe-identity", oracles: wasm, ours: `^collateral\.(parse: enclaveIdentity|signature: QE identity|fresh: QE identity)`},
		{id: "wasm-qe-identity", oracles: wasm, ours: `^collateral\.chain: `},
		// Both accept, with other statuses.
		{id: "module-status", oracles: js, status: `^OutOfDate/UpToDate$`},
		{id: "wasm-status", oracles: wasm, status: `^(OutOfDate|.*Needed)/(UpToDate|SWHardeningNeeded)$`},
		{id: "component-0", oracles: wasm, status: `/Unknown$`, label: `TDX component 0`},
		// Ours accepts.
		{id: "status-is-policy", oracles: golang, theirs: `failed TCB status check`},
		{id: "v5", oracles: wasm, theirs: `Failed to decode quote`, label: `v(ersion )?5`},
		{id: "component-0", oracles: js, theirs: `No matching TCB level`, label: `TDX component 0`},
	}
}

// disagreement is one sample on which a verifier and ours differ.
type disagreement struct {
	oracle       string
	sample       sample
	ours, theirs verdict
}

func compare(oracle string, c sample, ours, theirs verdict) (d disagreement, differ bool) {
	d = disagreement{oracle, c, ours, theirs}
	return d, ours.ok != theirs.ok || ours.ok && theirs.status != "" && ours.status != theirs.status
}

// class names the explanation; "" when there is none.
func (d disagreement) class() string {
	for _, c := range classes() {
		if !slices.Contains(c.oracles, d.oracle) || !regexp.MustCompile(c.label).MatchString(d.sample.label) {
			continue
		}
		switch {
		case c.ours != "" && !d.ours.ok && d.theirs.ok && regexp.MustCompile(c.ours).MatchString(d.ours.why),
			c.theirs != "" && d.ours.ok && !d.theirs.ok && regexp.MustCompile(c.theirs).MatchString(d.theirs.why),
			c.status != "" && d.ours.ok && d.theirs.ok && regexp.MustCompile(c.status).MatchString(d.ours.status+"/"+d.theirs.status):
			return c.id
		}
	}
	return ""
}

// laxer reports whether ours would admit, by a policy of fully patched platforms,
// what another verifier refuses.
func (d disagreement) laxer() bool {
	return d.ours.ok && d.ours.status == "UpToDate" && !d.theirs.ok
}

// notLaxer are the classes in which the other refuses what the vendor's rules
// allow: a format it cannot read, and a component that those rules exempt.
func notLaxer() []string { return []string{"v5", "component-0"} }

func (d disagreement) String() string {
	return fmt.Sprintf("%s on %q: ours %v %s %s; theirs %v %s %s", d.oracle, d.sample.label, d.ours.ok, d.ours.status, d.ours.why, d.theirs.ok, d.theirs.status, d.theirs.why)
}
