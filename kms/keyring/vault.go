package keyring

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"errors"
	"fmt"

	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/keys"
)

// wrapInfo binds a wrapped root to its cluster, epoch and member.
func wrapInfo(origin string, epoch uint32, member string) string {
	return fmt.Sprintf("phala-kms-root:v1:%s:%d:%s", origin, epoch, member)
}

// WrapRoot encrypts a root to a member.
func WrapRoot(origin string, r *keys.Root, m Member) ([]byte, error) {
	return keys.Wrap(m.WrapKey, wrapInfo(origin, r.Epoch(), m.ID), r.Marshal())
}

// Vault holds the root secrets in the memory of an attested member.
type Vault struct {
	origin string
	roots  []*keys.Root // by epoch
}

// Open decrypts the roots that the state holds for this member.
func Open(m *Machine, member string, wrapKey keys.Secret) (*Vault, error) {
	v := &Vault{origin: m.Origin()}
	for i, e := range m.Epochs() {
		s, err := keys.Unwrap(wrapKey, wrapInfo(v.origin, e.Number, member), e.Wrapped[member])
		if err != nil {
			return nil, fmt.Errorf("root of epoch %d: %w", e.Number, err)
		}
		r, err := keys.ParseRoot(s)
		if err != nil {
			return nil, fmt.Errorf("root of epoch %d: %w", e.Number, err)
		}
		if r.Epoch() != e.Number || int(e.Number) != i || string(r.K256Public()) != string(e.K256) {
			return nil, fmt.Errorf("root of epoch %d is not the recorded one", e.Number)
		}
		v.roots = append(v.roots, r)
	}
	if len(v.roots) == 0 {
		return nil, errors.New("the cluster has no root keys yet")
	}
	return v, nil
}

// String never shows a key.
func (v *Vault) String() string { return fmt.Sprintf("vault of %d epochs [redacted]", len(v.roots)) }

// current is the newest root: what new launches get.
func (v *Vault) current() *keys.Root { return v.roots[len(v.roots)-1] }

// Epoch is the newest epoch.
func (v *Vault) Epoch() uint32 { return v.current().Epoch() }

// CA is the root CA key, with which the member certifies its own API.
func (v *Vault) CA() *ecdsa.PrivateKey { return v.current().CA() }

// TicketKey signs route tickets.
func (v *Vault) TicketKey() (ed25519.PrivateKey, error) { return v.current().TicketKey() }

// NonceKey authenticates nonces: any member redeems what any member gave.
func (v *Vault) NonceKey() (keys.Secret, error) { return v.current().ServiceKey(keys.PurposeNonce) }

// EnvPublicKey is an app's environment key with both signatures of the reference.
func (v *Vault) EnvPublicKey(app cvm.AppID, at uint64) (pub, v0, v1 []byte, err error) {
	priv, err := v.current().EnvKey(app)
	if err != nil {
		return nil, nil, nil, err
	}
	if pub, err = keys.EnvPublicKey(priv); err != nil {
		return nil, nil, nil, err
	}
	v0, v1, err = v.current().SignEnvKey(app, pub, at)
	return pub, v0, v1, err
}

// WrapFor encrypts every root to a joining member.
func (v *Vault) WrapFor(m Member) (map[uint32][]byte, error) {
	out := map[uint32][]byte{}
	for _, r := range v.roots {
		c, err := WrapRoot(v.origin, r, m)
		if err != nil {
			return nil, err
		}
		out[r.Epoch()] = c
	}
	return out, nil
}

// AppKeys are an app's secrets of one epoch.
type AppKeys struct {
	Disk, Env, App keys.Secret
	AppSignature   []byte
}

var errNotDecided = errors.New("keyring: keys were asked for without a recorded decision")

func (v *Vault) root(r Recorded) (*keys.Root, error) {
	if !r.ok {
		return nil, errNotDecided
	}
	if int(r.lease.Epoch) >= len(v.roots) {
		return nil, fmt.Errorf("keyring: epoch %d is not here", r.lease.Epoch)
	}
	return v.roots[r.lease.Epoch], nil
}

// AppKeys gives the keys that a recorded decision releases (T1).
func (v *Vault) AppKeys(r Recorded) (out AppKeys, err error) {
	root, err := v.root(r)
	if err != nil {
		return out, err
	}
	l := r.lease
	if out.Disk, err = root.DiskKey(l.AppID, l.InstanceID); err != nil {
		return AppKeys{}, err
	}
	if out.Env, err = root.EnvKey(l.AppID); err != nil {
		return AppKeys{}, err
	}
	if out.App, err = root.AppKey(l.AppID); err != nil {
		return AppKeys{}, err
	}
	out.AppSignature, err = root.AppKeySignature(l.AppID)
	return out, err
}

// AppCA gives the key of the app's CA, under the same condition.
func (v *Vault) AppCA(r Recorded) (*ecdsa.PrivateKey, error) {
	root, err := v.root(r)
	if err != nil {
		return nil, err
	}
	return root.AppCA(r.lease.AppID)
}
