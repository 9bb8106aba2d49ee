package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"golang.org/x/crypto/ssh"

	"github.com/confidential-cloud/phala/api/cloudapi"
	"github.com/confidential-cloud/phala/api/store"
	"github.com/confidential-cloud/phala/cvm"
)

const (
	sshManual   = "manual"
	sshGithub   = "github"
	maxSSHKeys  = 100
	maxProfile  = 64 << 10
	profileWait = 10 * time.Second
)

func (s *Server) sshKeyRoutes(api huma.API) {
	register(s, api, op{method: "GET", path: "/user/ssh-keys", summary: "Your SSH keys", access: self("read")}, s.sshKeys)
	register(s, api, op{method: "POST", path: "/user/ssh-keys", summary: "Add an SSH key", status: 201, access: self("write")}, s.addSSHKey)
	register(s, api, op{method: "DELETE", path: "/user/ssh-keys/{id}", summary: "Remove an SSH key", status: 204, access: self("write")}, s.removeSSHKey)
	register(s, api, op{method: "POST", path: "/user/ssh-keys/github-profile", summary: "Add the keys of a public profile", access: self("write")}, s.importProfile)
	register(s, api, op{method: "POST", path: "/user/ssh-keys/github-sync", summary: "Bring imported keys up to date", access: self("write")}, s.syncProfiles)
}

func publicSSHKey(k store.SSHKey) cloudapi.SSHKey {
	out := cloudapi.SSHKey{ID: fmt.Sprintf("sshkey_%d", k.ID), UserID: userID(k.UserID), Name: k.Name, PublicKey: k.PublicKey, Fingerprint: k.Fingerprint,
		KeyType: k.Type, Source: k.Source, CreatedAt: k.CreatedAt, UpdatedAt: k.UpdatedAt}
	if k.Source == sshGithub {
		out.LastSyncedAt = ptr(k.UpdatedAt)
	}
	return out
}

// parseSSHKey reads one line of an authorized_keys file and writes it anew, without
// options: a key that runs a command of its own is none.
func parseSSHKey(line string) (k store.SSHKey, comment string, err error) {
	pub, comment, options, rest, err := ssh.ParseAuthorizedKey([]byte(line))
	switch {
	case err != nil:
		return k, "", errors.New("this is no public key in OpenSSH's format")
	case len(options) > 0:
		return k, "", errors.New("a key with options is not taken")
	case strings.TrimSpace(string(rest)) != "":
		return k, "", errors.New("one key at a time")
	}
	k.PublicKey, k.Fingerprint = strings.TrimSpace(string(ssh.MarshalAuthorizedKey(pub))), ssh.FingerprintSHA256(pub)
	switch t := pub.Type(); t {
	case ssh.KeyAlgoED25519:
		k.Type = "ed25519"
	case ssh.KeyAlgoRSA:
		k.Type = "rsa"
	case ssh.KeyAlgoECDSA256, ssh.KeyAlgoECDSA384, ssh.KeyAlgoECDSA521:
		k.Type = "ecdsa"
	case ssh.KeyAlgoSKED25519, ssh.KeyAlgoSKECDSA256:
		k.Type = t
	default:
		return k, "", fmt.Errorf("keys of type %s are not taken", t)
	}
	return k, comment, nil
}

func (s *Server) sshKeys(ctx context.Context, _ *none) ([]cloudapi.SSHKey, error) {
	list, err := s.store.SSHKeysOf(ctx, who(ctx).UserID)
	out := make([]cloudapi.SSHKey, 0, len(list))
	for _, k := range list {
		out = append(out, publicSSHKey(k))
	}
	return out, err
}

func (s *Server) addSSHKey(ctx context.Context, in *bodyOf[cloudapi.SSHKeyCreate]) (out cloudapi.SSHKey, err error) {
	k, _, err := parseSSHKey(in.Body.PublicKey)
	if err != nil {
		return out, invalid("public_key", err.Error())
	}
	have, err := s.store.SSHKeysOf(ctx, who(ctx).UserID)
	if err != nil {
		return out, err
	}
	if len(have) >= maxSSHKeys {
		return out, text(http.StatusConflict, fmt.Sprintf("%d SSH keys are enough: remove one first", maxSSHKeys))
	}
	k.UserID, k.Name, k.Source = who(ctx).UserID, in.Body.Name, sshManual
	k, err = s.store.AddSSHKey(ctx, k)
	if errors.Is(err, store.ErrTaken) {
		return out, text(http.StatusConflict, "you have this SSH key already")
	}
	return publicSSHKey(k), err
}

func (s *Server) removeSSHKey(ctx context.Context, in *NumberInput) (none, error) {
	id, err := in.number("sshkey_")
	if err == nil {
		err = s.store.RemoveSSHKey(ctx, who(ctx).UserID, id)
	}
	return none{}, named(err, "SSH key not found")
}

// profile reads the public keys of a profile, from where the configuration says and
// nowhere else: no redirects.
func (s *Server) profile(ctx context.Context, name string) (keys []store.SSHKey, problems []string, err error) {
	if s.cfg.SSHKeysURL == "" {
		return nil, nil, cvm.Errorf(cvm.Unsupported, "this cloud imports no SSH keys").WithReason("ssh-import-off").WithFix("add the key itself (POST /user/ssh-keys)")
	}
	if ok, _ := regexp.MatchString(`^[a-zA-Z0-9](-?[a-zA-Z0-9]){0,38}$`, name); !ok { // the pattern is good
		return nil, nil, invalid("github_username", "this is no profile's name")
	}
	ctx, cancel := context.WithTimeout(ctx, profileWait)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.ReplaceAll(s.cfg.SSHKeysURL, "{username}", url.PathEscape(name)), nil)
	if err != nil {
		return nil, nil, err
	}
	client := http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	res, err := client.Do(req)
	if err != nil {
		return nil, nil, cvm.Errorf(cvm.Unavailable, "the profile cannot be read now").WithReason("ssh-import")
	}
	defer res.Body.Close()
	if res.StatusCode == http.StatusNotFound {
		return nil, nil, text(http.StatusNotFound, "profile not found")
	}
	b, err := io.ReadAll(io.LimitReader(res.Body, maxProfile+1))
	if err != nil || res.StatusCode != http.StatusOK || len(b) > maxProfile {
		return nil, nil, cvm.Errorf(cvm.Unavailable, "the profile cannot be read now").WithReason("ssh-import")
	}
	n := 0
	for line := range strings.Lines(string(b)) {
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		n++
		k, _, err := parseSSHKey(line)
		if err != nil || n > maxSSHKeys {
			problems = append(problems, fmt.Sprintf("key %d: not taken", n))
			continue
		}
		k.Name, k.Source, k.Profile = fmt.Sprintf("%s %d", name, n), sshGithub, strings.ToLower(name)
		keys = append(keys, k)
	}
	return keys, problems, nil
}

// addKeys adds what the user does not have yet.
func (s *Server) addKeys(ctx context.Context, keys []store.SSHKey) (added, skipped int, err error) {
	for _, k := range keys {
		k.UserID = who(ctx).UserID
		switch _, err := s.store.AddSSHKey(ctx, k); {
		case errors.Is(err, store.ErrTaken):
			skipped++
		case err != nil:
			return added, skipped, err
		default:
			added++
		}
	}
	return added, skipped, nil
}

func (s *Server) importProfile(ctx context.Context, in *bodyOf[cloudapi.ProfileImport]) (out cloudapi.ProfileImported, err error) {
	keys, problems, err := s.profile(ctx, in.Body.Username)
	if err != nil {
		return out, err
	}
	out.Username, out.Errors = in.Body.Username, append([]string{}, problems...)
	out.KeysAdded, out.KeysSkipped, err = s.addKeys(ctx, keys)
	return out, err
}

// syncProfiles adds what is new in the profiles that keys came from, and removes what
// is gone there. A profile that cannot be read changes nothing.
func (s *Server) syncProfiles(ctx context.Context, _ *none) (out cloudapi.ProfileSynced, err error) {
	out.Errors = []string{}
	have, err := s.store.SSHKeysOf(ctx, who(ctx).UserID)
	if err != nil {
		return out, err
	}
	profiles := map[string][]store.SSHKey{}
	for _, k := range have {
		if k.Profile != "" {
			profiles[k.Profile] = append(profiles[k.Profile], k)
		}
	}
	for name, old := range profiles {
		keys, problems, err := s.profile(ctx, name)
		if err != nil {
			out.Errors = append(out.Errors, name+": "+err.Error())
			continue
		}
		out.Errors = append(out.Errors, problems...)
		out.SyncedCount += len(keys)
		added, _, err := s.addKeys(ctx, keys)
		if err != nil {
			return out, err
		}
		out.KeysAdded += added
		removed, err := s.dropGone(ctx, old, keys)
		if err != nil {
			return out, err
		}
		out.KeysRemoved += removed
	}
	return out, nil
}

func (s *Server) dropGone(ctx context.Context, old, now []store.SSHKey) (n int, err error) {
	there := map[string]bool{}
	for _, k := range now {
		there[k.Fingerprint] = true
	}
	for _, k := range old {
		if there[k.Fingerprint] {
			continue
		}
		if err := s.store.RemoveSSHKey(ctx, k.UserID, k.ID); err != nil && !errors.Is(err, store.ErrNotFound) {
			return n, err
		}
		n++
	}
	return n, nil
}
