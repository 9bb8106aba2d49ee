package ratls

import (
	"bytes"

	"github.com/vmihailenco/msgpack/v5"
	"github.com/vmihailenco/msgpack/v5/msgpcode"

	"github.com/confidential-cloud/phala/cvm"
)

// AppInfo is the APP_INFO extension: what the issuer verified about the holder.
type AppInfo struct {
	AppID           cvm.AppID
	ComposeHash     cvm.ComposeHash
	InstanceID      cvm.InstanceID // zero: encoded empty
	DeviceID        cvm.DeviceID
	MRSystem        [32]byte
	MRAggregated    [32]byte
	OSImageHash     cvm.ImageHash
	KeyProviderInfo []byte     // payload of the key-provider event
	InitScripts     [][32]byte // nil: absent
}

// appInfoFields is the length of the positional msgpack array.
const appInfoFields = 9

const maxInitScripts = 5

func (a *AppInfo) marshal() []byte {
	var buf bytes.Buffer
	e := msgpack.NewEncoder(&buf) // a bytes.Buffer never fails
	_ = e.EncodeArrayLen(appInfoFields)
	instance := a.InstanceID[:]
	if a.InstanceID.IsZero() {
		instance = []byte{}
	}
	provider := a.KeyProviderInfo
	if provider == nil {
		provider = []byte{}
	}
	for _, v := range [][]byte{a.AppID[:], a.ComposeHash[:], instance, a.DeviceID[:], a.MRSystem[:], a.MRAggregated[:], a.OSImageHash[:], provider} {
		_ = e.EncodeBytes(v)
	}
	if a.InitScripts == nil {
		_ = e.EncodeNil()
		return buf.Bytes()
	}
	_ = e.EncodeArrayLen(len(a.InitScripts))
	for _, s := range a.InitScripts {
		_ = e.EncodeBytes(s[:])
	}
	return buf.Bytes()
}

func parseAppInfo(b []byte) (*AppInfo, error) {
	bad := func() (*AppInfo, error) { return nil, cvm.Errorf(cvm.Invalid, "certificate: malformed APP_INFO") }
	r := bytes.NewReader(b)
	d := msgpack.NewDecoder(r)
	if n, err := d.DecodeArrayLen(); err != nil || n != appInfoFields {
		return bad()
	}
	a := &AppInfo{}
	fixed := func(dst []byte, optional bool) bool {
		v, ok := bin(d, len(b))
		if !ok || len(v) != len(dst) && (!optional || len(v) != 0) {
			return false
		}
		copy(dst, v)
		return true
	}
	ok := fixed(a.AppID[:], false) && fixed(a.ComposeHash[:], false) && fixed(a.InstanceID[:], true) && fixed(a.DeviceID[:], false) &&
		fixed(a.MRSystem[:], false) && fixed(a.MRAggregated[:], false) && fixed(a.OSImageHash[:], true)
	if !ok {
		return bad()
	}
	if a.KeyProviderInfo, ok = bin(d, len(b)); !ok {
		return bad()
	}
	n, err := d.DecodeArrayLen() // -1 for nil
	if err != nil || n > maxInitScripts {
		return bad()
	}
	for range max(n, 0) {
		var s [32]byte
		if !fixed(s[:], false) {
			return bad()
		}
		a.InitScripts = append(a.InitScripts, s)
	}
	if n == 0 {
		a.InitScripts = [][32]byte{}
	}
	if !bytes.Equal(a.marshal(), b) { // canonical, nothing after it
		return bad()
	}
	return a, nil
}

// bin reads a bin value no longer than its container: the decoder would allocate
// whatever the length claims.
func bin(d *msgpack.Decoder, limit int) ([]byte, bool) {
	code, err := d.PeekCode()
	if err != nil || code != msgpcode.Bin8 && code != msgpcode.Bin16 {
		return nil, false // Bin32 cannot be canonical at these sizes
	}
	v, err := d.DecodeBytes()
	return v, err == nil && len(v) <= limit
}
