package tdx

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
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
func (v *verifier) levels(s *endorsed) {
	platforms, modules := make([]collateral.SVNLevel, 0, 2), make([]collateral.SVNLevel, 0, 2)
	ok := true
	for _, svn := range v.svns() {
		m, okModule := v.module(s.tcb, svn)
		p, okPlatform := v.platform(s.tcb, svn)
		ok = ok && okModule && okPlatform
		platforms, modules = append(platforms, p), append(modules, m)
	}
	qe, okQE := v.qeIdentity(s.qe)
	if !ok || !okQE {
		return
	}
	t := &v.res.TCB
	t.Platform, t.Module, t.QE = worst(platforms...), worst(modules...), qe.Status
	t.Advisories = []string{}
	all := append(append(append(make([]collateral.SVNLevel, 0, 5), platforms...), modules...), qe)
	for _, l := range all {
		t.Advisories = append(t.Advisories, l.Advisories...)
	}
	slices.Sort(t.Advisories)
	t.Advisories = slices.Compact(t.Advisories)
	switch status := worst(all...); status {
	case "":
		v.rec.Fail(claim.TCBMatch, "", unknown(all), "the vendor's rating is of a kind that is not known here")
	case Revoked:
		v.rec.Fail(claim.TCBMatch, "", Revoked, "the vendor revoked this patch level")
		t.Status = Revoked
	default:
		v.rec.Pass(claim.TCBMatch, status)
		t.Status = status
	}
}

// svns lists the TEE SVNs that count. A TD 1.5 body states two: of the TDX module
// that launched the TD and of that which runs now. They differ after an update that
// preserved the TD, and then the worse rating counts.
func (v *verifier) svns() [][16]byte {
	b := &v.q.Body
	if b.TD15 && b.TEETCBSVN2 != b.TEETCBSVN {
		return [][16]byte{b.TEETCBSVN, b.TEETCBSVN2}
	}
	return [][16]byte{b.TEETCBSVN}
}

// worst merges the statuses of several parts; "" when one of them is not known.
func worst(levels ...collateral.SVNLevel) string {
	status := UpToDate
	for _, l := range levels {
		if !known(l.Status) {
			return ""
		}
		status = merge(status, l.Status)
	}
	return status
}

func unknown(levels []collateral.SVNLevel) string {
	i := slices.IndexFunc(levels, func(l collateral.SVNLevel) bool { return !known(l.Status) })
	return fmt.Sprintf("%.40q", levels[i].Status)
}

func known(status string) bool {
	switch status {
	case UpToDate, SWHardeningNeeded, ConfigNeeded, ConfigAndSWNeeded, OutOfDate, OutOfDateConfigNeeded, Revoked:
		return true
	}
	return false
}

// merge lowers a known status by that of another part.
func merge(a, b string) string {
	switch {
	case a == Revoked || b == Revoked:
		return Revoked
	case b == UpToDate:
		return a
	case a == UpToDate:
		return b
	}
	old := isOld(a) || isOld(b)
	config := needsConfig(a) || needsConfig(b)
	hard := a == SWHardeningNeeded || a == ConfigAndSWNeeded || b == SWHardeningNeeded || b == ConfigAndSWNeeded
	switch {
	case old && config:
		return OutOfDateConfigNeeded
	case old:
		return OutOfDate
	case config && hard:
		return ConfigAndSWNeeded
	case config:
		return ConfigNeeded
	}
	return SWHardeningNeeded
}

func isOld(s string) bool { return s == OutOfDate || s == OutOfDateConfigNeeded }

func needsConfig(s string) bool {
	return s == ConfigNeeded || s == ConfigAndSWNeeded || s == OutOfDateConfigNeeded
}

// platform finds the first level that the processor and the TD's SVNs reach. From
// TDX module 1.5 on (TEE_TCB_SVN[1] > 0), the module's own identity rates
// components 0 and 1.
func (v *verifier) platform(t *collateral.TCBInfo, svn [16]byte) (collateral.SVNLevel, bool) {
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
func (v *verifier) module(t *collateral.TCBInfo, svn [16]byte) (collateral.SVNLevel, bool) {
	id, level := t.Module, collateral.SVNLevel{Status: UpToDate}
	if svn[1] > 0 {
		want := "TDX_" + hex.EncodeToString(svn[1:2])
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
	v.rec.Pass(claim.TDXModule, "module "+strconv.Itoa(int(svn[1]))+"."+strconv.Itoa(int(svn[0]))+" "+level.Status)
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
