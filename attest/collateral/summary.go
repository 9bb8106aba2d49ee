package collateral

import (
	"crypto/x509"
	"math/big"
	"time"

	"github.com/confidential-cloud/phala/cvm"
)

// Summary is what a set says about itself. Nothing in it is verified: it is for
// people and for caches.
type Summary struct {
	Subject       Subject   // of a SEV-SNP set: product and signer only
	From          time.Time // latest beginning among its statements
	Until         time.Time // earliest end among its statements and their issuers
	TCBEvaluation int       // tcbEvaluationDataNumber of the TCB info; 0 for SEV-SNP
	QEEvaluation  int       // that of the QE identity; 0 for SEV-SNP
	RootCRLNumber *big.Int  // of the list that the root signed
	PCKCRLNumber  *big.Int  // of the list of processors; nil for SEV-SNP
}

// span narrows a period.
func (s *Summary) span(from, until time.Time) {
	if from.After(s.From) {
		s.From = from
	}
	if s.Until.IsZero() || until.Before(s.Until) {
		s.Until = until
	}
}

func (s *Summary) certs(cs []*x509.Certificate) {
	for _, c := range cs {
		s.span(c.NotBefore, c.NotAfter)
	}
}

func (s *Summary) list(der []byte) (*big.Int, error) {
	l, err := ParseCRL(der)
	if err != nil {
		return nil, err
	}
	s.span(l.Window().From, l.Window().Until)
	if l.list.Number == nil {
		return new(big.Int), nil
	}
	return l.list.Number, nil
}

// Summarize reads a set. Errors carry code invalid.
func Summarize(c Set) (Summary, error) {
	if c.AMD != nil {
		return summarizeAMD(c)
	}
	var s Summary
	var err error
	if s.Subject, err = SubjectOf(c); err != nil {
		return s, err
	}
	t, err := ParseTCBInfo(c.TCBInfo)
	if err != nil {
		return s, err
	}
	q, err := ParseQEIdentity(c.QEIdentity)
	if err != nil {
		return s, err
	}
	s.TCBEvaluation, s.QEEvaluation = t.EvalNumber, q.EvalNumber
	s.span(t.From, t.Until)
	s.span(q.From, q.Until)
	for _, text := range [][]byte{c.TCBInfoIssuerChain, c.QEIdentityIssuerChain} {
		chain, err := ParseChain(text, 2)
		if err != nil {
			return s, err
		}
		s.certs(chain)
	}
	if len(c.PCKCRLIssuerChain) > MaxChain {
		return s, cvm.Errorf(cvm.Invalid, "collateral: an issuer chain of %d bytes", len(c.PCKCRLIssuerChain))
	}
	if s.RootCRLNumber, err = s.list(c.RootCRL); err != nil {
		return s, err
	}
	s.PCKCRLNumber, err = s.list(c.PCKCRL)
	return s, err
}

func summarizeAMD(c Set) (Summary, error) {
	var s Summary
	var err error
	if len(c.TCBInfo)+len(c.QEIdentity)+len(c.RootCRL)+len(c.PCKCRL) != 0 {
		return s, cvm.Errorf(cvm.Invalid, "collateral: statements of two vendors in one set")
	}
	if s.Subject, err = SubjectOf(c); err != nil {
		return s, err
	}
	chain, err := ParseChain(c.AMD.Chain, 2)
	if err != nil {
		return s, err
	}
	s.certs(chain)
	leaf, err := ParseDER([][]byte{c.AMD.Leaf}, 1)
	if err != nil {
		return s, err
	}
	s.certs(leaf)
	s.RootCRLNumber, err = s.list(c.AMD.CRL)
	return s, err
}
