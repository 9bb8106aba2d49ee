package collateral

import (
	"encoding/hex"
	"strings"

	"github.com/confidential-cloud/phala/cvm"
)

// TCBInfo is the vendor's rating of one processor model.
type TCBInfo struct {
	Signed
	Window

	FMSPC      [6]byte
	PCEID      [2]byte
	EvalNumber int
	Module     ModuleIdentity   // of TDX modules 1.0 (TEE_TCB_SVN[1] == 0); no levels
	Modules    []ModuleIdentity // of later modules
	Levels     []Level
}

// Level is one patch level of the platform.
type Level struct {
	SGX        [16]uint8
	PCESVN     uint16
	TDX        [16]uint8
	Status     string
	Advisories []string
}

// ModuleIdentity is one major version of the TDX module.
type ModuleIdentity struct {
	ID             string // "TDX_03"
	MRSigner       [48]byte
	Attributes     [8]byte
	AttributesMask [8]byte
	Levels         []SVNLevel
}

// SVNLevel is a rating by one security version number.
type SVNLevel struct {
	SVN        uint16
	Status     string
	Advisories []string
}

// The tags below name the members for the tests, which compare what decode.go reads
// with what encoding/json does.
type jsonComponent struct {
	SVN int `json:"svn"`
}

type jsonTCBInfo struct {
	ID         string       `json:"id"`
	Version    int          `json:"version"`
	IssueDate  string       `json:"issueDate"`
	NextUpdate string       `json:"nextUpdate"`
	FMSPC      string       `json:"fmspc"`
	PCEID      string       `json:"pceId"`
	TCBType    int          `json:"tcbType"`
	EvalNumber int          `json:"tcbEvaluationDataNumber"`
	Module     *jsonModule  `json:"tdxModule"`
	Modules    []jsonModule `json:"tdxModuleIdentities"`
	Levels     []jsonLevel  `json:"tcbLevels"`
}

type jsonModule struct {
	ID             string         `json:"id"`
	MRSigner       string         `json:"mrsigner"`
	Attributes     string         `json:"attributes"`
	AttributesMask string         `json:"attributesMask"`
	Levels         []jsonSVNLevel `json:"tcbLevels"`
}

type jsonLevel struct {
	TCB struct {
		SGX    []jsonComponent `json:"sgxtcbcomponents"`
		PCESVN *int            `json:"pcesvn"`
		TDX    []jsonComponent `json:"tdxtcbcomponents"`
	} `json:"tcb"`
	Status     string   `json:"tcbStatus"`
	Advisories []string `json:"advisoryIDs"`
}

type jsonSVNLevel struct {
	TCB struct {
		SVN *int `json:"isvsvn"`
	} `json:"tcb"`
	Status     string   `json:"tcbStatus"`
	Advisories []string `json:"advisoryIDs"`
}

// maxLevels bounds lists of levels, modules and advisories.
const maxLevels = 256

// ParseTCBInfo reads a TCB info body. The signature is not checked.
func ParseTCBInfo(body []byte) (*TCBInfo, error) {
	s, err := ParseSigned(body, "tcbInfo")
	if err != nil {
		return nil, err
	}
	j, err := decodeTCBInfo(s.Bytes)
	if err != nil {
		return nil, cvm.Errorf(cvm.Invalid, "tcbInfo: %w", err)
	}
	if j.ID != "TDX" || j.Version != 3 || j.TCBType != 0 {
		return nil, cvm.Errorf(cvm.Invalid, "tcbInfo: id %q, version %d, type %d: want TDX, 3, 0", j.ID, j.Version, j.TCBType)
	}
	t := &TCBInfo{Signed: s, EvalNumber: j.EvalNumber}
	if t.Window, err = window("tcbInfo", j.IssueDate, j.NextUpdate); err != nil {
		return nil, err
	}
	if err := fixed("tcbInfo", field{"fmspc", j.FMSPC, t.FMSPC[:]}, field{"pceId", j.PCEID, t.PCEID[:]}); err != nil {
		return nil, err
	}
	if j.Module == nil || j.EvalNumber < 1 || len(j.Levels) == 0 || len(j.Levels) > maxLevels || len(j.Modules) > maxLevels {
		return nil, cvm.Errorf(cvm.Invalid, "tcbInfo: tdxModule, tcbEvaluationDataNumber or tcbLevels missing or too many")
	}
	m := &t.Module
	if err := fixed("tdxModule", field{"mrsigner", j.Module.MRSigner, m.MRSigner[:]}, field{"attributes", j.Module.Attributes, m.Attributes[:]},
		field{"attributesMask", j.Module.AttributesMask, m.AttributesMask[:]}); err != nil {
		return nil, err
	}
	if err := t.modules(j); err != nil {
		return nil, err
	}
	return t, t.levels(j)
}

func (t *TCBInfo) modules(j jsonTCBInfo) error {
	for _, jm := range j.Modules {
		m := ModuleIdentity{ID: jm.ID}
		err := fixed("tdxModuleIdentities", field{"mrsigner", jm.MRSigner, m.MRSigner[:]}, field{"attributes", jm.Attributes, m.Attributes[:]},
			field{"attributesMask", jm.AttributesMask, m.AttributesMask[:]})
		if err != nil {
			return err
		}
		for _, o := range t.Modules {
			if strings.EqualFold(o.ID, m.ID) {
				return cvm.Errorf(cvm.Invalid, "tdxModuleIdentities: %s appears twice", m.ID)
			}
		}
		if m.Levels, err = svnLevels("tdxModuleIdentities", jm.Levels); err != nil {
			return err
		}
		t.Modules = append(t.Modules, m)
	}
	return nil
}

func (t *TCBInfo) levels(j jsonTCBInfo) error {
	for i, jl := range j.Levels {
		l := Level{Status: jl.Status, Advisories: jl.Advisories}
		if len(jl.TCB.SGX) != 16 || len(jl.TCB.TDX) != 16 || jl.TCB.PCESVN == nil || len(l.Advisories) > maxLevels {
			return cvm.Errorf(cvm.Invalid, "tcbInfo: level %d: want 16 SGX and 16 TDX components and a PCE SVN", i)
		}
		for k := range 16 {
			s, x := jl.TCB.SGX[k].SVN, jl.TCB.TDX[k].SVN
			if s < 0 || s > 255 || x < 0 || x > 255 {
				return cvm.Errorf(cvm.Invalid, "tcbInfo: level %d: component %d out of range", i, k)
			}
			l.SGX[k], l.TDX[k] = uint8(s), uint8(x)
		}
		if *jl.TCB.PCESVN < 0 || *jl.TCB.PCESVN > 0xffff {
			return cvm.Errorf(cvm.Invalid, "tcbInfo: level %d: pcesvn out of range", i)
		}
		l.PCESVN = uint16(*jl.TCB.PCESVN)
		t.Levels = append(t.Levels, l)
	}
	return nil
}

func svnLevels(what string, js []jsonSVNLevel) ([]SVNLevel, error) {
	if len(js) == 0 || len(js) > maxLevels {
		return nil, cvm.Errorf(cvm.Invalid, "%s: %d levels", what, len(js))
	}
	var out []SVNLevel
	for _, j := range js {
		if j.TCB.SVN == nil || *j.TCB.SVN < 0 || *j.TCB.SVN > 0xffff || len(j.Advisories) > maxLevels {
			return nil, cvm.Errorf(cvm.Invalid, "%s: level without a proper isvsvn", what)
		}
		out = append(out, SVNLevel{SVN: uint16(*j.TCB.SVN), Status: j.Status, Advisories: j.Advisories})
	}
	return out, nil
}

// QEIdentity is the vendor's description of its quoting enclave.
type QEIdentity struct {
	Signed
	Window

	EvalNumber     int
	MiscSelect     [4]byte // as printed: big endian hex
	MiscSelectMask [4]byte
	Attributes     [16]byte
	AttributesMask [16]byte
	MRSigner       [32]byte
	ISVProdID      uint16
	Levels         []SVNLevel
}

type jsonQEIdentity struct {
	ID             string         `json:"id"`
	Version        int            `json:"version"`
	IssueDate      string         `json:"issueDate"`
	NextUpdate     string         `json:"nextUpdate"`
	EvalNumber     int            `json:"tcbEvaluationDataNumber"`
	MiscSelect     string         `json:"miscselect"`
	MiscSelectMask string         `json:"miscselectMask"`
	Attributes     string         `json:"attributes"`
	AttributesMask string         `json:"attributesMask"`
	MRSigner       string         `json:"mrsigner"`
	ISVProdID      *int           `json:"isvprodid"`
	Levels         []jsonSVNLevel `json:"tcbLevels"`
}

// ParseQEIdentity reads an enclave identity body. The signature is not checked.
func ParseQEIdentity(body []byte) (*QEIdentity, error) {
	s, err := ParseSigned(body, "enclaveIdentity")
	if err != nil {
		return nil, err
	}
	j, err := decodeQEIdentity(s.Bytes)
	if err != nil {
		return nil, cvm.Errorf(cvm.Invalid, "enclaveIdentity: %w", err)
	}
	if j.ID != "TD_QE" || j.Version != 2 || j.EvalNumber < 1 || j.ISVProdID == nil || *j.ISVProdID < 0 || *j.ISVProdID > 0xffff {
		return nil, cvm.Errorf(cvm.Invalid, "enclaveIdentity: id %q, version %d: want TD_QE, 2, with isvprodid and evaluation number", j.ID, j.Version)
	}
	q := &QEIdentity{Signed: s, EvalNumber: j.EvalNumber, ISVProdID: uint16(*j.ISVProdID)}
	if q.Window, err = window("enclaveIdentity", j.IssueDate, j.NextUpdate); err != nil {
		return nil, err
	}
	err = fixed("enclaveIdentity", field{"miscselect", j.MiscSelect, q.MiscSelect[:]}, field{"miscselectMask", j.MiscSelectMask, q.MiscSelectMask[:]},
		field{"attributes", j.Attributes, q.Attributes[:]}, field{"attributesMask", j.AttributesMask, q.AttributesMask[:]},
		field{"mrsigner", j.MRSigner, q.MRSigner[:]})
	if err != nil {
		return nil, err
	}
	q.Levels, err = svnLevels("enclaveIdentity", j.Levels)
	return q, err
}

type field struct {
	name, hex string
	dst       []byte
}

// fixed decodes hex members (either case: the vendor prints both) of exact length.
func fixed(what string, fs ...field) error {
	for _, f := range fs {
		b, err := hex.DecodeString(f.hex)
		if err != nil || len(b) != len(f.dst) {
			return cvm.Errorf(cvm.Invalid, "%s: %s is not %d bytes of hex", what, f.name, len(f.dst))
		}
		copy(f.dst, b)
	}
	return nil
}
