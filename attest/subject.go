package attest

import (
	"bytes"
	"crypto/x509"
	"slices"
	"strings"

	"github.com/confidential-cloud/phala/attest/collateral"
	"github.com/confidential-cloud/phala/attest/sevsnp"
	"github.com/confidential-cloud/phala/attest/tdx"
	"github.com/confidential-cloud/phala/cvm"
)

// Subject names the platform whose collateral evidence needs: what to ask its vendor
// for, and which entry of a bundle to take (collateral.Bundle.Find). Nothing is
// verified. Errors: invalid; unsupported where the vendor gives no collateral, or a
// report and its certificates name no known processor.
func Subject(ev Evidence) (collateral.Subject, error) {
	switch {
	case ev.isTDX():
		q, err := tdx.ParseQuote(ev.Quote)
		if err != nil {
			return collateral.Subject{}, err
		}
		chain, pck, err := q.ParseChain()
		if err != nil {
			return collateral.Subject{}, err
		}
		return collateral.Subject{Root: collateral.SPKIHash(chain[len(chain)-1]), FMSPC: pck.FMSPC, CA: pck.CA}, nil
	case ev.isSNP():
		return snpSubject(ev)
	}
	return collateral.Subject{}, cvm.Errorf(cvm.Unsupported, "collateral: %q is no kind of TEE whose vendor is known here", ev.Variant)
}

func snpSubject(ev Evidence) (collateral.Subject, error) {
	r, err := sevsnp.ParseReport(ev.Report)
	if err != nil {
		return collateral.Subject{}, err
	}
	s := collateral.Subject{Product: r.Product(), Signer: "vcek", Chip: r.ChipID[:], TCB: r.ReportedTCB}
	switch r.SigningKey {
	case sevsnp.KeyVCEK:
	case sevsnp.KeyVLEK:
		s.Signer = "vlek"
	default:
		return s, cvm.Errorf(cvm.Invalid, "collateral: the report is signed by no key of AMD's")
	}
	if s.Product == "" {
		s.Product = issuerProduct(ev.CertChain)
	}
	if !slices.Contains(sevsnp.Products(), s.Product) {
		return s, cvm.Errorf(cvm.Unsupported, "collateral: the report names no known processor, and no certificate that came with it does").
			WithFix("send the VCEK with the report, or use firmware that makes reports of version 3 or later")
	}
	s.Chip = s.Chip[:sevsnp.HWIDSize(s.Product)]
	if bytes.Equal(s.Chip, make([]byte, len(s.Chip))) {
		s.Chip = nil
	}
	return s, nil
}

// issuerProduct reads the product from a certificate's issuer ("SEV-Milan",
// "SEV-VLEK-Milan"), for reports of version 2, which do not say it.
func issuerProduct(certs [][]byte) string {
	for _, der := range certs[:min(len(certs), maxCerts)] {
		if len(der) > collateral.MaxCertificate {
			continue
		}
		c, err := x509.ParseCertificate(der)
		if err != nil {
			continue
		}
		if p, ok := strings.CutPrefix(c.Issuer.CommonName, "SEV-"); ok {
			return strings.TrimPrefix(p, "VLEK-")
		}
	}
	return ""
}
