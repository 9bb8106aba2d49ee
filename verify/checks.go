package verify

import (
	"crypto/sha256"

	"github.com/confidential-cloud/phala/attest/claim"
	"github.com/confidential-cloud/phala/cvm"
)

// Names of the checks that this package makes itself. They are stable. Those of
// the evidence have the names of package claim.
const (
	checkConnect     = "tls.connect"
	checkCertificate = "tls.certificate"
	checkKeyProved   = "tls.key-proved"

	checkFetched     = "evidence.fetched"
	checkSameGateway = "evidence.same-gateway"
	checkParsed      = "evidence.parsed"
	checkCollateral  = "collateral.fetched"
	checkValues      = "reference-values"
	checkGenuine     = "tee.genuine"

	checkApp     = "identity.app"
	checkCompose = "identity.compose"
	checkKMS     = "identity.kms"
	checkPinned  = "identity.kms-pinned"
	checkEnv     = "identity.env-signed"
	checkDevice  = "identity.device"

	checkIncluded   = "ledger.included"
	checkLeaf       = "ledger.leaf"
	checkConsistent = "ledger.consistent"
	checkNonce      = "ledger.nonce"
	checkThen       = "governance.then"
	checkNow        = "governance.now"
	checkOnChain    = "governance.gateway"
)

// about is what a person is told about a check. Optional ones do not decide.
type about struct {
	title, fix string
	optional   bool
}

func describe(name string) about {
	m := map[string]about{
		checkConnect:     {title: "The address answers with TLS", fix: "is the cloud running, and does its name or port lead there? Use the profile's gateway.address"},
		checkCertificate: {title: "The certificate is valid for this name", fix: "give the cloud's local CA in the profile (gateway.ca_file), or look at the gateway's certificate"},
		checkKeyProved:   {title: "The TLS key is the one that the gateway's TEE proves", fix: "somebody between you and the gateway may end TLS: do not send anything secret"},
		checkFetched:     {title: "It shows evidence for a fresh nonce", fix: "is it running? See: phala cvms get, phala logs"},
		checkSameGateway: {title: "The evidence came through the same gateway", fix: "the app's evidence must come over the connection that was proved: try again"},
		checkParsed:      {title: "The evidence is well formed", fix: "the evidence was damaged on its way, or comes from another version"},
		checkCollateral:  {title: "The vendor's collateral was fetched", fix: "check tee.collateral_urls in the profile and that this machine reaches them"},
		checkValues:      {title: "The reference values are signed, current and not older than before", fix: "check tee.reference_values in the profile and that this machine reaches a source"},
		checkGenuine:     {title: "The TEE is genuine hardware", fix: "the profile admits a root that is not a hardware vendor's: fine for development, nothing else", optional: true},
		checkApp:         {title: "It is the app that was asked for", fix: "the gateway routed to another app: report this"},
		checkCompose:     {title: "The shown app-compose is the measured one", fix: "the document that is shown is not what runs: report this"},
		checkKMS:         {title: "Its keys come from the profile's KMS", fix: "a false KMS was offered to the guest, or the profile is of another cloud"},
		checkPinned:      {title: "Its measured document names that KMS", fix: "set key_provider_id in app-compose, so that the host cannot offer another KMS", optional: true},
		checkEnv:         {title: "Its environment is signed by its owner", fix: "name env_signers in app-compose and deploy with a client that signs", optional: true},
		checkDevice:      {title: "The evidence names its device", fix: "the processor's firmware masks its chip id, or a cloud provider's key (VLEK) signed: let the host show CHIP_ID, and join with its own key (VCEK)"},
		checkIncluded:    {title: "The release of its keys is in the signed ledger", fix: "the members that the profile names did not sign this; compare ledger.keys with another profile of the cloud"},
		checkLeaf:        {title: "The ledger's entry is about this very boot", fix: "the receipt belongs to another boot: report this"},
		checkConsistent:  {title: "The newest ledger contains that one", fix: "the ledger was rewritten or forked, or is behind: keep both checkpoints and report this"},
		checkNonce:       {title: "The release answered a fresh nonce", fix: "the guest spoke the reference's protocol, which has no nonce", optional: true},
		checkThen:        {title: "The rules on chain allowed it at the release's blocks", fix: "the KMS released what the chain did not allow, or the RPC endpoint keeps no old state (an archive node does)"},
		checkNow:         {title: "The rules on chain allow it now", fix: "the owner may have withdrawn it: see the contract's text, and `phala cvms get`"},
		checkOnChain:     {title: "The chain names this gateway", fix: "the profile's gateway.app_id is not the one on chain: get a newer profile"},
	}
	if a, ok := m[name]; ok {
		return a
	}
	for _, a := range claim.All() {
		if a.Name == name {
			return about{title: a.Title, fix: a.Fix, optional: a.Optional}
		}
	}
	return about{title: name}
}

func (s *Section) add(name string, v claim.Verdict, want, got, reason string) {
	a := describe(name)
	c := claim.Check{Name: name, Title: a.title, Verdict: v, Required: !a.optional, Want: want, Got: got, Reason: reason}
	if v != claim.Passed {
		c.Fix = a.fix
	}
	s.Checks = append(s.Checks, c)
}

func (s *Section) pass(name, got string)            { s.add(name, claim.Passed, "", got, "") }
func (s *Section) fail(name, want, got, why string) { s.add(name, claim.Failed, want, got, why) }
func (s *Section) skip(name, why string)            { s.add(name, claim.Skipped, "", "", why) }
func (s *Section) equal(name, want, got, why string) bool {
	if want != got {
		s.fail(name, want, got, why)
		return false
	}
	s.pass(name, got)
	return true
}

// try records err; a coded error's fix replaces the general one.
func (s *Section) try(name string, err error) bool {
	if err == nil {
		s.pass(name, "")
		return true
	}
	s.fail(name, "", "", err.Error())
	if f := fixOf(err); f != "" {
		s.Checks[len(s.Checks)-1].Fix = f
	}
	return false
}

// require makes the newest check of that name decide.
func (s *Section) require(name string) {
	for i := range s.Checks {
		if s.Checks[i].Name == name {
			s.Checks[i].Required = true
		}
	}
}

func fixOf(err error) string {
	for err != nil {
		if e, ok := err.(*cvm.Error); ok && e.Fix != "" { //nolint:errorlint // walks the chain by hand, for the nearest fix
			return e.Fix
		}
		u, ok := err.(interface{ Unwrap() error })
		if !ok {
			return ""
		}
		err = u.Unwrap()
	}
	return ""
}

func sum(b []byte) []byte {
	h := sha256.Sum256(b)
	return h[:]
}
