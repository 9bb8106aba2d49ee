package api

import (
	"bytes"
	"cmp"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/confidential-cloud/phala/api/cloudapi"
	"github.com/confidential-cloud/phala/appcompose"
	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/internal/composefile"
	"github.com/confidential-cloud/phala/keys"
)

// composed is an app-compose that passed all checks.
type composed struct {
	doc      *appcompose.Document
	warnings []string
}

func (c composed) hash() string { return c.doc.Hash().String() }

// object reads a JSON object, numbers as written.
func object(raw []byte) (map[string]any, error) {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	var m map[string]any
	if err := d.Decode(&m); err != nil || m == nil {
		return nil, fail(http.StatusUnprocessableEntity, errNoCompose, cvm.Invalid, "compose-missing",
			"compose_file: want an app-compose object with a docker_compose_file in it")
	}
	return m, nil
}

// defaults are the public contract's for a document without manifest_version.
func defaults() map[string]any {
	return map[string]any{
		"manifest_version": json.Number("2"), "runner": "docker-compose", "features": []any{"kms", "tproxy-net"},
		"kms_enabled": true, "gateway_enabled": true, "tproxy_enabled": true, "public_logs": true, "public_sysinfo": true,
		"public_tcbinfo": true, "local_key_provider_enabled": false, "no_instance_id": false, "secure_time": false,
		"storage_fs": "ext4", "allowed_envs": []any{},
	}
}

// compose makes the exact app-compose of a request's object. A document with
// manifest_version is whole: only an empty name and a missing key_provider_id are
// filled in, so that a client can compute the same bytes. Others are laid over base.
// gpus is how many cards its CVM has.
func (s *Server) compose(raw []byte, name string, base map[string]any, gpus int) (composed, error) {
	m, err := object(raw)
	if err != nil {
		return composed{}, err
	}
	if _, whole := m["manifest_version"]; !whole {
		for k, v := range m {
			if v == nil { // clients write null for "not given"
				delete(m, k)
			}
		}
		for k, v := range base {
			if _, given := m[k]; !given {
				m[k] = v
			}
		}
		// An empty script and none are the same to a guest, but not to the hash.
		if m["pre_launch_script"] == "" {
			delete(m, "pre_launch_script")
		}
	}
	if n, _ := m["name"].(string); n == "" {
		m["name"] = name
	}
	return s.composeOf(m, gpus)
}

func (s *Server) composeOf(m map[string]any, gpus int) (composed, error) {
	if id, _ := m["key_provider_id"].(string); id == "" && wantsKMS(m) {
		m["key_provider_id"] = s.cfg.KMS.RootSPKI
	}
	b, err := json.Marshal(m)
	if err != nil {
		return composed{}, fmt.Errorf("encoding app-compose: %w", err)
	}
	if b, err = appcompose.Canonical(b); err != nil {
		return composed{}, fmt.Errorf("encoding app-compose: %w", err)
	}
	doc, err := appcompose.Parse(b)
	if err != nil {
		return composed{}, fail(http.StatusUnprocessableEntity, errBadCompose, cvm.Invalid, "compose-invalid", err.Error())
	}
	if doc.Provider() == appcompose.ProviderKMS && !strings.EqualFold(doc.KeyProviderID, s.cfg.KMS.RootSPKI) {
		return composed{}, fail(http.StatusUnprocessableEntity, errBadCompose, cvm.Invalid, "key-provider-mismatch",
			"compose_file.key_provider_id pins another KMS than this cloud's: the guest would refuse its keys",
			"leave key_provider_id out, or log in to the cloud whose KMS it names")
	}
	return s.check(doc, gpus)
}

func wantsKMS(m map[string]any) bool {
	switch m["key_provider"] {
	case nil, "":
		return m["kms_enabled"] == true
	}
	return m["key_provider"] == appcompose.ProviderKMS
}

// check looks at what the guest would stumble over; gpus is how many cards it has.
func (s *Server) check(doc *appcompose.Document, gpus int) (composed, error) {
	out := composed{doc: doc}
	if n := len(doc.DockerComposeFile) + len(doc.PreLaunchScript); n > composefile.MaxSize {
		return out, fail(http.StatusUnprocessableEntity, errBadCompose, cvm.Invalid, "compose-too-large",
			fmt.Sprintf("docker_compose_file and pre_launch_script have %d bytes, the limit is %d", n, composefile.MaxSize),
			"move data into an image or a volume")
	}
	if doc.Runner != appcompose.RunnerDockerCompose {
		return out, nil
	}
	if strings.TrimSpace(doc.DockerComposeFile) == "" {
		return out, fail(http.StatusUnprocessableEntity, errNoCompose, cvm.Invalid, "compose-missing", "compose_file.docker_compose_file is empty",
			"send the text of your docker-compose.yml")
	}
	f, err := composefile.Parse([]byte(doc.DockerComposeFile))
	if err != nil {
		return out, err
	}
	if err := f.Check(); err != nil {
		return out, err
	}
	if n, at := f.GPUs(); n > gpus {
		return out, s.noGPU(at.Error(), n, gpus)
	}
	for _, w := range f.Lint() {
		out.warnings = append(out.warnings, w.String())
	}
	return out, nil
}

// noGPU is the answer for an app that needs more GPUs than its CVM has: it names a type
// that has as many.
func (s *Server) noGPU(where string, need, have int) error {
	why, fix := "this CVM has none", "leave the GPU out, or deploy where CVMs have GPUs"
	if have > 0 {
		why, fix = fmt.Sprintf("this CVM has %d", have), fmt.Sprintf("ask for %d at the most", have)
	}
	if i := slices.IndexFunc(s.cfg.InstanceTypes, func(t InstanceType) bool { return t.GPUs >= need }); i >= 0 {
		t := s.cfg.InstanceTypes[i]
		why += fmt.Sprintf("; instance type %s has %d (%s)", t.ID, t.GPUs, cmp.Or(t.GPUName, t.GPU))
		fix = "deploy a CVM of instance_type " + t.ID + " (GET /instance-types lists all), or ask for fewer"
	} else {
		why += ", and no instance type of this cloud has as many"
	}
	out := fail(http.StatusUnprocessableEntity, errNoGPU, cvm.Unsupported, "gpu-not-available", "compose file: "+where+", and "+why, fix)
	d := out.Detail.(cloudapi.ErrorDetail) //nolint:forcetypeassert // made a line above
	d.Details = []cloudapi.Detail{{Field: "gpus", Value: have, Message: fmt.Sprintf("%d needed", need)}}
	out.Detail = d
	return out
}

// Limits of an encrypted environment, in bytes: 1 MiB of names and values and
// their JSON; ephemeral key, nonce and tag at least.
const (
	maxEnv = 1<<20 + 256<<10
	minEnv = 60
)

// env is a checked encrypted environment.
type env struct {
	blob []byte
	sig  *cloudapi.EnvSignature
}

// readEnv checks an encrypted environment as far as one who cannot read it can.
// The KMS checks the signature again, and keeps the counter's high-water mark.
func readEnv(doc *appcompose.Document, app cvm.AppID, hexBlob string, sig *cloudapi.EnvSignature, last uint64) (e env, err error) {
	var p problems
	if hexBlob == "" {
		if sig != nil {
			p.add("env_signature", "value_error", "there is no encrypted_env to sign", "")
		}
		return e, p.err()
	}
	if len(hexBlob) > 2*maxEnv {
		p.add("encrypted_env", "value_error.too_long", fmt.Sprintf("the environment has %d bytes, the limit is %d", len(hexBlob)/2, maxEnv),
			"keep large data in a file or volume, not in the environment")
		return e, p.err()
	}
	if e.blob, err = hex.DecodeString(strings.TrimPrefix(hexBlob, "0x")); err != nil || len(e.blob) < minEnv {
		p.add("encrypted_env", "value_error", "want hex of ephemeral key, nonce, ciphertext and tag (at least 60 bytes)", "encrypt with the app's key: phala envs encrypt")
		return e, p.err()
	}
	e.sig = sig
	checkSignature(&p, doc, app, e, last)
	return e, p.err()
}

func checkSignature(p *problems, doc *appcompose.Document, app cvm.AppID, e env, last uint64) {
	switch {
	case len(doc.EnvSigners) == 0 && e.sig == nil:
		return // UNSIGNED ENV: the KMS's policy decides
	case len(doc.EnvSigners) == 0:
		p.add("env_signature", "value_error", "the app-compose names no env_signers, so nobody would check this signature", "name the signer in env_signers, or leave env_signature out")
		return
	case e.sig == nil:
		p.add("env_signature", "missing", "the app-compose names env_signers: the environment must be signed by one of them", "deploy with our CLI, which signs, or remove env_signers")
		return
	case !slices.ContainsFunc(doc.EnvSigners, func(a string) bool { return keys.SameAddress(a, e.sig.Signer) }):
		p.add("env_signature.signer", "value_error", e.sig.Signer+" is not among the app-compose's env_signers", "sign with the wallet that the app names")
	case e.sig.Counter <= last:
		p.add("env_signature.counter", "value_error", fmt.Sprintf("counter %d does not grow: the present environment has %d", e.sig.Counter, last), "sign again with a higher counter")
	}
	if len(*p) > 0 {
		return
	}
	raw, err := hex.DecodeString(strings.TrimPrefix(e.sig.Signature, "0x"))
	signer := ""
	if err == nil {
		signer, err = keys.RecoverEnvSigner(raw, app, e.sig.Counter, sha(e.blob))
	}
	if err != nil || !keys.SameAddress(signer, e.sig.Signer) {
		p.add("env_signature.signature", "value_error", "the signature is not "+e.sig.Signer+"'s over this app, counter and environment", "sign keys.EnvMessage: app id, counter, sha256 of the encrypted bytes")
	}
}
