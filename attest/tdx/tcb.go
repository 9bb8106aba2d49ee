package tdx

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

	"github.com/confidential-cloud/phala/attest/claim"
	"github.com/confidential-cloud/phala/attest/collateral"
)

// TCB statuses as the vendor spells them.
const (
	UpToDate              = "UpToDate"
	SWHardeningNeeded     = "SWHardeningNeeded"
	ConfigNeeded          = "ConfigurationNeeded"
	ConfigAndSWNeeded     = "ConfigurationAndSWHardeningNeeded"
	OutOfDate             = "OutOfDate"
	OutOfDateConfigNeeded = "OutOfDateConfigurationNeeded"
	Revoked               = "Revoked"
)

// levels rates platform, TDX module and QE and merges the three.
func (v *verifier) levels(s parsed) {
	t := &v.res.TCB
	module, okModule := v.module(s.tcb)
	qe, okQE := v.qeIdentity(s.qe)
	platform, okPlatform := v.platform(s.tcb)
	if !okPlatform || !okModule || !okQE {
		return
	}
	t.Platform, t.Module, t.QE = platform.Status, module.Status, qe.Status
	t.Advisories = []string{}
	for _, a := range [][]string{platform.Advisories, module.Advisories, qe.Advisories} {
		t.Advisories = append(t.Advisories, a...)
	}
	slices.Sort(t.Advisories)
	t.Advisories = slices.Compact(t.Advisories)
	status := platform.Status
	for _, other := range []string{module.Status, qe.Status} {
		var err error
		if status, err = merge(status, other); err != nil {
			v.rec.Fail(claim.TCBMatch, "", other, err.Error())
			return
		}
	}
	if status == Revoked {
		v.rec.Fail(claim.TCBMatch, "", Revoked, "the vendor revoked this patch level")
	}
	t.Status = status
	v.rec.Pass(claim.TCBMatch, status)
}

// merge lowers a status by that of another part.
func merge(a, b string) (string, error) {
	for _, s := range []string{a, b} {
		switch s {
		case UpToDate, SWHardeningNeeded, ConfigNeeded, ConfigAndSWNeeded, OutOfDate, OutOfDateConfigNeeded, Revoked:
		default:
			return "", fmt.Errorf("unknown TCB status %q", s)
		}
	}
	switch {
	case a == Revoked || b == Revoked:
		return Revoked, nil
	case b == UpToDate:
		return a, nil
	case a == UpToDate:
		return b, nil
	}
	old := isOld(a) || isOld(b)
	config := needsConfig(a) || needsConfig(b)
	hard := a == SWHardeningNeeded || a == ConfigAndSWNeeded || b == SWHardeningNeeded || b == ConfigAndSWNeeded
	switch {
	case old && config:
		return OutOfDateConfigNeeded, nil
	case old:
		return OutOfDate, nil
	case config && hard:
		return ConfigAndSWNeeded, nil
	case config:
		return ConfigNeeded, nil
	}
	return SWHardeningNeeded, nil
}

func isOld(s string) bool { return s == OutOfDate || s == OutOfDateConfigNeeded }

func needsConfig(s string) bool {
	return s == ConfigNeeded || s == ConfigAndSWNeeded || s == OutOfDateConfigNeeded
}

// platform finds the first level that the processor and the TD's SVNs reach. From
// TDX module 1.5 on (TEE_TCB_SVN[1] > 0), the module's own identity rates
// components 0 and 1.
func (v *verifier) platform(t *collateral.TCBInfo) (collateral.SVNLevel, bool) {
	svn := v.q.Body.TEETCBSVN
	from := 0
	if svn[1] > 0 {
		from = 2
	}
	for _, l := range t.Levels {
		if v.res.PCK.PCESVN < l.PCESVN || !reaches(v.res.PCK.SGX[:], l.SGX[:]) || !reaches(svn[from:], l.TDX[from:]) {
			continue
		}
		return collateral.SVNLevel{Status: l.Status, Advisories: l.Advisories}, true
	}
	v.rec.Fail(claim.TCBMatch, "", "", "the vendor lists no patch level this old")
	return collateral.SVNLevel{}, false
}

func reaches(have, want []uint8) bool {
	for i := range want {
		if have[i] < want[i] {
			return false
		}
	}
	return true
}

// module checks the TDX module's signer and attributes and rates its version.
func (v *verifier) module(t *collateral.TCBInfo) (collateral.SVNLevel, bool) {
	svn := v.q.Body.TEETCBSVN
	id, level := t.Module, collateral.SVNLevel{Status: UpToDate}
	if svn[1] > 0 {
		want := fmt.Sprintf("TDX_%02x", svn[1])
		i := slices.IndexFunc(t.Modules, func(m collateral.ModuleIdentity) bool { return strings.EqualFold(m.ID, want) })
		if i < 0 {
			v.rec.Fail(claim.TDXModule, "", want, "the vendor lists no such TDX module")
			return level, false
		}
		id = t.Modules[i]
		j := slices.IndexFunc(id.Levels, func(l collateral.SVNLevel) bool { return uint16(svn[0]) >= l.SVN })
		if j < 0 {
			v.rec.Fail(claim.TDXModule, "", fmt.Sprintf("%s version %d", want, svn[0]), "the vendor lists no version this old")
			return level, false
		}
		level = id.Levels[j]
	}
	var attrs [8]byte
	binary.LittleEndian.PutUint64(attrs[:], v.q.Body.SeamAttributes)
	switch {
	case v.q.Body.MRSignerSeam != id.MRSigner:
		v.rec.Fail(claim.TDXModule, short(id.MRSigner[:]), short(v.q.Body.MRSignerSeam[:]), "the TDX module has another signer")
		return level, false
	// Bits outside the mask must be zero: no vendor statement covers them.
	case !masked(attrs[:], id.Attributes[:], id.AttributesMask[:]) || v.q.Body.SeamAttributes&^le64(id.AttributesMask[:]) != 0:
		v.rec.Fail(claim.TDXModule, short(id.Attributes[:]), short(attrs[:]), "the TDX module runs with other attributes")
		return level, false
	}
	v.rec.Pass(claim.TDXModule, fmt.Sprintf("module %d.%d %s", svn[1], svn[0], level.Status))
	return level, true
}

// qeIdentity compares the QE report with the vendor's identity and rates its version.
func (v *verifier) qeIdentity(id *collateral.QEIdentity) (level collateral.SVNLevel, ok bool) {
	r := v.q.report
	fail := func(want, got []byte, reason string) (collateral.SVNLevel, bool) {
		v.rec.Fail(claim.QEIdentity, short(want), short(got), reason)
		return level, false
	}
	// The identity prints miscselect as a number, the report holds it little endian.
	misc := []byte{r[19], r[18], r[17], r[16]}
	prod := binary.LittleEndian.Uint16(r[256:258])
	svn := binary.LittleEndian.Uint16(r[258:260])
	switch {
	case !sameBytes(v.q.vendor, qeVendorIntel()):
		return fail(qeVendorIntel(), v.q.vendor, "the quote names another quoting enclave vendor")
	case r[48]&2 != 0:
		return fail(nil, r[48:64], "the quoting enclave can be debugged")
	case !masked(misc, id.MiscSelect[:], id.MiscSelectMask[:]):
		return fail(id.MiscSelect[:], misc, "MISCSELECT differs")
	case !masked(r[48:64], id.Attributes[:], id.AttributesMask[:]):
		return fail(id.Attributes[:], r[48:64], "attributes differ")
	case !sameBytes(r[128:160], id.MRSigner[:]):
		return fail(id.MRSigner[:], r[128:160], "signer differs")
	case prod != id.ISVProdID:
		return fail([]byte{byte(id.ISVProdID)}, []byte{byte(prod)}, "product id differs")
	}
	i := slices.IndexFunc(id.Levels, func(l collateral.SVNLevel) bool { return svn >= l.SVN })
	if i < 0 {
		return fail(nil, r[258:260], "the vendor lists no quoting enclave this old")
	}
	v.rec.Pass(claim.QEIdentity, id.Levels[i].Status)
	return id.Levels[i], true
}

func masked(got, want, mask []byte) bool {
	for i := range mask {
		if got[i]&mask[i] != want[i]&mask[i] {
			return false
		}
	}
	return true
}
