package nvidia

import (
	"encoding/hex"
	"strconv"
	"strings"
)

const (
	spaceSWID    = "http://standards.iso.org/iso/19770/-2/2015/schema.xsd"
	maxGolden    = 256
	maxVariants  = 64
	kindMeasured = "Measurement"
)

// RIM is a reference integrity manifest: an ISO 19770-2 tag with the measurements
// that NVIDIA made of one driver or VBIOS (TCG PC Client RIM).
type RIM struct {
	TagID    string
	Name     string
	Version  string           // colloquialVersion of its Meta element
	Golden   map[int][][]byte // index (from 0) -> the admitted digests
	Inactive int              // measurements that the RIM lists and does not judge
	sig      *signature
}

// ParseRIM reads a signed RIM and checks that the digest in its signature is that
// of its content. Who signed is not judged.
func ParseRIM(b []byte) (*RIM, error) {
	root, err := parseXML(b)
	if err != nil {
		return nil, err
	}
	if root.local != "SoftwareIdentity" || root.space != spaceSWID {
		return nil, refuseXML("not a software identity tag")
	}
	r := &RIM{TagID: value(root, "tagId"), Name: value(root, "name"), Golden: map[int][][]byte{}}
	if r.sig, err = parseSignature(root); err != nil {
		return nil, err
	}
	metas, payloads := 0, 0
	for _, k := range children(root) {
		if k.space != spaceSWID {
			continue
		}
		switch k.local {
		case "Meta":
			metas++
			r.Version = value(k, "colloquialVersion")
		case "Payload":
			payloads++
			if err := r.payload(k); err != nil {
				return nil, err
			}
		}
	}
	if metas != 1 || payloads != 1 || r.Version == "" || len(r.Golden) == 0 {
		return nil, refuseXML("want one Meta with a version and one Payload with measurements")
	}
	return r, nil
}

func (r *RIM) payload(e *element) error {
	seen := map[int]bool{}
	for _, k := range children(e) {
		if k.local != "Resource" || value(k, "type") != kindMeasured {
			return refuseXML("the payload has a %.40q that is no measurement", k.local)
		}
		i, err := strconv.Atoi(value(k, "index"))
		if err != nil || i < 0 || i >= maxGolden || seen[i] {
			return refuseXML("measurement %.40q is out of range or repeated", value(k, "index"))
		}
		seen[i] = true
		switch active := value(k, "active"); active {
		case "True":
			if r.Golden[i], err = hashes(k); err != nil {
				return err
			}
		case "False":
			r.Inactive++
		default:
			return refuseXML("measurement %d: active is %.40q", i, active)
		}
	}
	return nil
}

// hashes reads the admitted values Hash0 to Hash(n-1), whatever namespace they are
// in: the vendor's tags write them in one that names the algorithm.
func hashes(e *element) ([][]byte, error) {
	n, err := strconv.Atoi(value(e, "alternatives"))
	size := value(e, "size")
	if err != nil || n < 1 || n > maxVariants || size != strconv.Itoa(digestSize) {
		return nil, refuseXML("measurement %s: %q alternatives of %q bytes", value(e, "index"), value(e, "alternatives"), size)
	}
	out := make([][]byte, n)
	found := 0
	for _, a := range e.attrs {
		num, ok := strings.CutPrefix(a.local, "Hash")
		if !ok {
			continue
		}
		i, err := strconv.Atoi(num)
		if err != nil || i < 0 || i >= n || out[i] != nil || strconv.Itoa(i) != num {
			return nil, refuseXML("measurement %s: attribute %.40q", value(e, "index"), a.local)
		}
		if out[i], err = hex.DecodeString(a.value); err != nil || len(out[i]) != digestSize {
			return nil, refuseXML("measurement %s: %s is not %d bytes of hex", value(e, "index"), a.local, digestSize)
		}
		found++
	}
	if found != n {
		return nil, refuseXML("measurement %s: %d values, want %d", value(e, "index"), found, n)
	}
	return out, nil
}
