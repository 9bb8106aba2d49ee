package prpc

import (
	"net/http"
	"strings"

	"github.com/confidential-cloud/phala/internal/prpc"
)

// Mounts of the two services and of the log stream.
const (
	MountVmm   = "/prpc/"
	MountGuest = "/guest/"
	PathLogs   = "/logs"
)

// empty is the answer of methods without one: the literal null.
type empty struct{}

// MarshalJSON writes null.
func (empty) MarshalJSON() ([]byte, error) { return []byte("null"), nil }

// readers are the methods that change nothing; the others are not served to GET,
// which a browser can be made to send.
func readers() map[string]bool {
	return map[string]bool{
		"GetComposeHash": true, "Status": true, "GetInfo": true, "ListImages": true, "GetAppEnvEncryptPubKey": true,
		"Version": true, "GetMeta": true, "ListGpus": true, "SvList": true, "ListRegistryImages": true,
		"guest:Info": true, "guest:SysInfo": true, "guest:NetworkInfo": true, "guest:ListContainers": true,
	}
}

// Owns reports whether a path belongs to this package.
func Owns(path string) bool {
	return path == PathLogs || strings.HasPrefix(path, MountVmm) || strings.HasPrefix(path, MountGuest)
}

// ReadOnly reports whether the method at path changes nothing.
func ReadOnly(path string) bool {
	if path == PathLogs {
		return true
	}
	if name, ok := strings.CutPrefix(path, MountGuest); ok {
		return readers()["guest:"+prpc.Name(name, "", guestPrefixes()...)]
	}
	return readers()[prpc.Name(path, MountVmm, vmmPrefixes()...)]
}

func vmmPrefixes() []string   { return []string{"Vmm.", "Teepod."} }
func guestPrefixes() []string { return []string{"ProxiedGuestApi.", "GuestApi."} }

// WriteError answers in the reference's shape.
func WriteError(w http.ResponseWriter, status int, err error) {
	(&prpc.Service{ErrorText: errorText}).Fail(w, status, err)
}
