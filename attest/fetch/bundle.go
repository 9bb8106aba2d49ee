package fetch

import (
	"github.com/confidential-cloud/phala/attest/collateral"
)

// Offline makes a client that answers from a bundle and never touches the network.
func Offline(cfg Config, b collateral.Bundle) (*Client, error) {
	cfg.URLs, cfg.KDS, cfg.Bundle = nil, nil, &b
	return New(cfg)
}

// Entry is the bundle entry that an answer makes.
func (a Answer) Entry() collateral.Entry {
	return collateral.Entry{Subject: a.Subject.String(), Fetched: a.Fetched.UTC(), Set: a.Set}
}

// unpack sorts a bundle's statements by the keys that they are asked for by. They
// are judged when they are used; of one statement in several entries the newest counts.
func (c *Client) unpack(b *collateral.Bundle) (map[string]*part, error) {
	if b == nil {
		return nil, nil
	}
	out := map[string]*part{}
	for _, e := range b.Entries {
		add := func(s statement, body, chain []byte) {
			if old := out[s.key]; old == nil || old.fetched.Before(e.Fetched) {
				out[s.key] = &part{key: s.key, body: body, chain: chain, fetched: e.Fetched, from: "bundle"}
			}
		}
		s, err := collateral.ParseSubject(e.Subject)
		switch {
		case err != nil:
			return nil, err
		case s.TDX():
			q := question{fmspc: s.FMSPC, ca: s.CA, spki: s.Root}
			add(c.tcbInfo(q), e.Set.TCBInfo, e.Set.TCBInfoIssuerChain)
			add(c.qeIdentity(q), e.Set.QEIdentity, e.Set.QEIdentityIssuerChain)
			add(c.pckCRL(q), e.Set.PCKCRL, e.Set.PCKCRLIssuerChain)
			add(c.rootCRL(q), e.Set.RootCRL, nil)
		case e.Set.AMD != nil:
			q := chipQuestion{product: s.Product, signer: s.Signer, chip: s.Chip, tcb: s.TCB}
			add(c.amdChain(q), e.Set.AMD.Chain, nil)
			add(c.amdCRL(q, nil), e.Set.AMD.CRL, nil)
			add(c.amdLeaf(q, nil), e.Set.AMD.Leaf, nil)
		}
	}
	return out, nil
}
