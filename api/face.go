package api

import (
	"crypto/sha256"
	"encoding/hex"
	"sync"

	"github.com/confidential-cloud/phala/api/store"
	"github.com/confidential-cloud/phala/appcompose"
	"github.com/confidential-cloud/phala/internal/composefile"
)

// maxFaces bounds each of the two halves of faces.
const maxFaces = 4096

// faces remembers what lists show of app-composes, of CVMs that do not keep it. When
// the young are many they become the old, and the old, of which those that were asked
// for are young again, are forgotten.
type faces struct {
	mu         sync.Mutex
	young, old map[string]*store.Face
}

// of is a CVM's: kept with it, remembered, or read now. It is not to be changed.
func (f *faces) of(c store.CVM) *store.Face {
	sum := sha256.Sum256(c.AppCompose)
	key := hex.EncodeToString(sum[:])
	if c.Face != nil && c.Face.Of == key {
		return c.Face
	}
	f.mu.Lock()
	v := f.young[key]
	if v == nil {
		if v = f.old[key]; v != nil {
			f.add(v)
		}
	}
	f.mu.Unlock()
	if v != nil {
		return v
	}
	v = newFace(parsed(c), key)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.add(v)
	return v
}

func (f *faces) add(v *store.Face) {
	if len(f.young) >= maxFaces {
		f.young, f.old = nil, f.young
	}
	if f.young == nil {
		f.young = map[string]*store.Face{}
	}
	f.young[v.Of] = v
}

func newFace(d *appcompose.Document, of string) *store.Face {
	f := &store.Face{Of: of, Gateway: d.WantsGateway(), PublicLogs: d.PublicLogs, PublicSysinfo: d.PublicSysinfo, PublicTCB: d.TCBInfoPublic(),
		SecureTime: d.SecureTime != nil && *d.SecureTime, StorageFS: d.StorageFS}
	if !f.Gateway || d.Runner != appcompose.RunnerDockerCompose {
		return f
	}
	file, err := composefile.Parse([]byte(d.DockerComposeFile))
	if err != nil {
		return f
	}
	for _, p := range file.Ports() {
		switch {
		case !p.Reachable():
		case p.Published == 80:
			f.Ports = append(f.Ports, 0)
		default:
			f.Ports = append(f.Ports, p.Published)
		}
	}
	return f
}
