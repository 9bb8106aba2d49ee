package collateral

import (
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"

	"github.com/confidential-cloud/phala/cvm"
)

// Subject names what a Set is about. As text:
//
//	tdx/<hex sha256 of the root's SubjectPublicKeyInfo>/<fmspc>/<platform|processor>
//	snp/<product>/<vcek|vlek>/<chip id in hex, or "masked">/<reported TCB, 16 hex digits>
type Subject struct {
	Root  [32]byte // TDX
	FMSPC [6]byte  // TDX
	CA    string   // TDX: whose list of processors counts

	Product string // SEV-SNP; "" for TDX
	Signer  string // SEV-SNP
	Chip    []byte // SEV-SNP: 64 bytes, 8 on Turin; nil where the host masks it
	TCB     uint64 // SEV-SNP: TCB_VERSION
}

// TDX reports whether the subject is an Intel platform.
func (s Subject) TDX() bool { return s.Product == "" }

const masked = "masked"

func (s Subject) String() string {
	if s.TDX() {
		return "tdx/" + hex.EncodeToString(s.Root[:]) + "/" + hex.EncodeToString(s.FMSPC[:]) + "/" + s.CA
	}
	chip := hex.EncodeToString(s.Chip)
	if s.Chip == nil {
		chip = masked
	}
	return fmt.Sprintf("snp/%s/%s/%s/%016x", s.Product, s.Signer, chip, s.TCB)
}

// ParseSubject reads the text form, and nothing but it.
func ParseSubject(text string) (Subject, error) {
	bad := cvm.Errorf(cvm.Invalid, "collateral: %.120q names no platform", text)
	f := strings.Split(text, "/")
	var s Subject
	switch {
	case len(text) > 256:
		return s, bad
	case f[0] == "tdx" && len(f) == 4:
		root, err1 := hex.DecodeString(f[1])
		fmspc, err2 := hex.DecodeString(f[2])
		if err1 != nil || err2 != nil || len(root) != 32 || len(fmspc) != 6 || f[3] != "platform" && f[3] != "processor" {
			return s, bad
		}
		s = Subject{Root: [32]byte(root), FMSPC: [6]byte(fmspc), CA: f[3]}
	case f[0] == "snp" && len(f) == 5:
		tcb, err := strconv.ParseUint(f[4], 16, 64)
		if err != nil || f[1] == "" || f[2] != "vcek" && f[2] != "vlek" {
			return s, bad
		}
		s = Subject{Product: f[1], Signer: f[2], TCB: tcb}
		if f[3] != masked {
			if s.Chip, err = hex.DecodeString(f[3]); err != nil || len(s.Chip) != 8 && len(s.Chip) != 64 {
				return s, bad
			}
		}
	}
	if s.String() != text {
		return Subject{}, bad
	}
	return s, nil
}

// SubjectOf reads what a set is about from its own statements, none of which is
// verified. Of a SEV-SNP set only product and signer are filled in.
func SubjectOf(s Set) (Subject, error) {
	if s.AMD != nil {
		return amdSubject(*s.AMD)
	}
	t, err := ParseTCBInfo(s.TCBInfo)
	if err != nil {
		return Subject{}, err
	}
	chain, err := ParseChain(s.TCBInfoIssuerChain, 2)
	if err != nil {
		return Subject{}, err
	}
	l, err := ParseCRL(s.PCKCRL)
	if err != nil {
		return Subject{}, err
	}
	out := Subject{Root: SPKIHash(chain[1]), FMSPC: t.FMSPC}
	switch cn := l.list.Issuer.CommonName; cn {
	case "Intel SGX PCK Platform CA":
		out.CA = "platform"
	case "Intel SGX PCK Processor CA":
		out.CA = "processor"
	default:
		return Subject{}, cvm.Errorf(cvm.Invalid, "collateral: the list of processors is that of %.80q", cn)
	}
	return out, nil
}

func amdSubject(a AMD) (Subject, error) {
	chain, err := ParseChain(a.Chain, 2)
	if err != nil {
		return Subject{}, err
	}
	out := Subject{Signer: "vcek"}
	p, ok := strings.CutPrefix(chain[0].Subject.CommonName, "SEV-")
	if q, vlek := strings.CutPrefix(p, "VLEK-"); vlek {
		p, out.Signer = q, "vlek"
	}
	if out.Product = p; !ok || p == "" {
		return Subject{}, cvm.Errorf(cvm.Invalid, "collateral: %.80q is no key of AMD's", chain[0].Subject.CommonName)
	}
	return out, nil
}
