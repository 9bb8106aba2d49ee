package api

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/confidential-cloud/phala/api/cloudapi"
	"github.com/confidential-cloud/phala/api/store"
	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/guest-agent/guestapi"
	"github.com/confidential-cloud/phala/vmm/vmmapi"
)

// guestTimeout bounds a question to a guest.
const guestTimeout = 15 * time.Second

// offline is why a guest cannot be asked, or nil.
func offline(c store.CVM) *string {
	if c.Status == cloudapi.StatusRunning {
		return nil
	}
	return ptr("the CVM is " + c.Status)
}

// explain turns a failed question to a guest into the answer's error text.
func explain(err error) *string {
	var e *cvm.Error
	if errors.As(err, &e) && e.Code != cvm.Internal {
		return ptr(e.Message)
	}
	return ptr("the guest did not answer")
}

func (s *Server) composition(ctx context.Context, in *IDInput) (out cloudapi.Composition, err error) {
	c, err := s.find(ctx, in.ID)
	if err != nil {
		return out, err
	}
	d := parsed(c)
	out = cloudapi.Composition{IsPublic: d.PublicSysinfo, Error: offline(c), DockerComposeFile: opt(d.DockerComposeFile),
		ManifestVersion: ptr(int(d.ManifestVersion)), Runner: opt(d.Runner), Features: d.Features}
	if out.Error != nil {
		return out, nil
	}
	list, err := s.containers(ctx, c)
	if err != nil {
		out.Error = explain(err)
		return out, nil
	}
	out.IsOnline, out.Containers = true, []cloudapi.Container{}
	for _, i := range list.Images {
		out.Images = append(out.Images, cloudapi.ImageUse(i))
	}
	for _, g := range list.Containers {
		v := cloudapi.Container{ID: g.ID, Names: g.Names, Image: g.Image, ImageID: g.ImageID, Created: g.Created, State: g.State, Status: g.Status}
		if d.PublicLogs && d.WantsGateway() && len(g.Names) > 0 {
			v.LogEndpoint = ptr(s.url(c.AppID, guestapi.ExternalPort) + "/logs/" + url.PathEscape(strings.TrimPrefix(g.Names[0], "/")))
		}
		out.Containers = append(out.Containers, v)
	}
	return out, nil
}

func (s *Server) containers(ctx context.Context, c store.CVM) (v guestapi.Containers, err error) {
	vmm, err := s.nodes.client(c.NodeID)
	if err != nil {
		return v, err
	}
	ctx, cancel := context.WithTimeout(ctx, guestTimeout)
	defer cancel()
	return vmm.GuestContainers(ctx, c.UUID)
}

func (s *Server) stats(ctx context.Context, in *IDInput) (out cloudapi.Stats, err error) {
	c, err := s.find(ctx, in.ID)
	if err != nil {
		return out, err
	}
	ops, err := s.store.OpenOps(ctx, c.ID)
	if err != nil {
		return out, err
	}
	d := parsed(c)
	out = cloudapi.Stats{IsPublic: d.PublicSysinfo, Error: offline(c), Status: ptr(c.Status), InProgress: len(ops) > 0,
		BootProgress: opt(c.BootProgress), BootError: bootError(c)}
	if out.Error != nil {
		return out, nil
	}
	if !d.PublicSysinfo {
		out.Error = ptr("the app's compose file has public_sysinfo: false")
		return out, nil
	}
	vmm, err := s.nodes.client(c.NodeID)
	if err != nil {
		return out, err
	}
	ask, cancel := context.WithTimeout(ctx, guestTimeout)
	defer cancel()
	g, err := vmm.GuestSysInfo(ask, c.UUID)
	if err != nil {
		out.Error = explain(err)
		return out, nil
	}
	out.IsOnline, out.Sysinfo = true, sysinfo(g)
	return out, nil
}

func sysinfo(g guestapi.SysInfo) *cloudapi.Sysinfo {
	v := &cloudapi.Sysinfo{
		OSName: g.OSName, OSVersion: g.OSVersion, KernelVersion: g.KernelVersion, CPUModel: g.CPUModel, NumCPUs: g.NumCPUs,
		TotalMemory: g.TotalMemory, AvailableMemory: g.AvailableMemory, UsedMemory: g.UsedMemory, FreeMemory: g.FreeMemory,
		TotalSwap: g.TotalSwap, UsedSwap: g.UsedSwap, FreeSwap: g.FreeSwap, Uptime: g.Uptime,
		LoadavgOne: g.LoadavgOne, LoadavgFive: g.LoadavgFive, LoadavgFifteen: g.LoadavgFifteen, Disks: []cloudapi.Disk{},
	}
	for _, d := range g.Disks {
		v.Disks = append(v.Disks, cloudapi.Disk{Name: d.Name, MountPoint: d.MountPoint, TotalSize: d.TotalSize, FreeSize: d.FreeSize})
	}
	return v
}

func (s *Server) network(ctx context.Context, in *IDInput) (out cloudapi.Network, err error) {
	c, err := s.find(ctx, in.ID)
	if err != nil {
		return out, err
	}
	d := parsed(c)
	return cloudapi.Network{IsOnline: c.Status == cloudapi.StatusRunning, IsPublic: d.PublicSysinfo, Error: offline(c), PublicURLs: s.endpoints(c)}, nil
}

type attestationInput struct {
	IDInput
	Nonce string `query:"nonce" pattern:"^([0-9a-fA-F]{2}){0,64}$" doc:"hex, 8 to 64 bytes: also answers with the guest's evidence over it"`
}

func (s *Server) attestation(ctx context.Context, in *attestationInput) (out cloudapi.Attestation, err error) {
	c, err := s.find(ctx, in.ID)
	if err != nil {
		return out, err
	}
	d := parsed(c)
	out = cloudapi.Attestation{Name: ptr(c.Name), IsPublic: d.TCBInfoPublic(), Error: offline(c), ComposeFile: ptr(string(c.AppCompose)), Simulated: s.simulated(c)}
	if out.Error != nil {
		return out, nil
	}
	vmm, err := s.nodes.client(c.NodeID)
	if err != nil {
		return out, err
	}
	ask, cancel := context.WithTimeout(ctx, guestTimeout)
	defer cancel()
	var g guestapi.AppInfo
	if err := vmm.GuestInfo(ask, c.UUID, &g); err != nil {
		out.Error = explain(err)
		return out, nil
	}
	out.IsOnline, out.AppCertificates = true, certificates(g.AppCert)
	var tcb cloudapi.TCBInfo
	if g.TCBInfo != "" && json.Unmarshal([]byte(g.TCBInfo), &tcb) == nil {
		out.TCBInfo = &tcb
	}
	if in.Nonce == "" {
		return out, nil
	}
	nonce, _ := hex.DecodeString(in.Nonce) // its pattern was checked
	ev, err := vmm.GuestEvidence(ask, c.UUID, nonce)
	if err != nil {
		return out, err
	}
	out.Evidence = ev
	return out, nil
}

// certificates shows a PEM chain; what does not parse is left out.
func certificates(chain string) []cloudapi.Certificate {
	out := []cloudapi.Certificate{}
	rest := []byte(chain)
	for {
		var b *pem.Block
		if b, rest = pem.Decode(rest); b == nil {
			return out
		}
		c, err := x509.ParseCertificate(b.Bytes)
		if err != nil {
			continue
		}
		sum := sha256.Sum256(c.Raw)
		first := func(l []string) *string {
			if len(l) == 0 {
				return nil
			}
			return ptr(l[0])
		}
		out = append(out, cloudapi.Certificate{
			Subject:      cloudapi.CertName{CommonName: opt(c.Subject.CommonName), Organization: first(c.Subject.Organization), Country: first(c.Subject.Country)},
			Issuer:       cloudapi.CertName{CommonName: opt(c.Issuer.CommonName), Organization: first(c.Issuer.Organization), Country: first(c.Issuer.Country)},
			SerialNumber: c.SerialNumber.Text(16), NotBefore: stamp(c.NotBefore), NotAfter: stamp(c.NotAfter), Version: fmt.Sprintf("v%d", c.Version),
			Fingerprint: hex.EncodeToString(sum[:]), SignatureAlgorithm: c.SignatureAlgorithm.String(), SANs: c.DNSNames, IsCA: c.IsCA, PositionInChain: ptr(len(out)),
		})
	}
}

// logs passes a container's log through; nothing of it is kept. An app that keeps
// its logs private (public_logs: false) keeps them from its operator too.
func (s *Server) logs(ctx context.Context, in *streamInput) (func(huma.Context), error) {
	c, err := s.find(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	if !parsed(c).PublicLogs {
		return nil, fail(http.StatusForbidden, "", cvm.Denied, "logs-private", "this app keeps its logs private (public_logs: false)",
			"set public_logs: true and update the app, or let the app send its logs somewhere")
	}
	vmm, err := s.nodes.client(c.NodeID)
	if err != nil {
		return nil, err
	}
	if why := offline(c); why != nil {
		return nil, fail(http.StatusConflict, "", cvm.Precondition, "not-running", *why+": containers have no logs now", "start it, or look at the console: phala logs --serial")
	}
	name := in.Container
	if name == "" {
		list, err := s.containers(ctx, c)
		if err != nil {
			return nil, err
		}
		if len(list.Containers) == 0 || len(list.Containers[0].Names) == 0 {
			return nil, fail(http.StatusNotFound, "", cvm.NotFound, "no-containers", "the app has no containers yet", "look at the console: phala logs --serial")
		}
		name = list.Containers[0].Names[0]
	}
	q := url.Values{"text": {"true"}, "bare": {"true"}}
	set := func(k, v string) {
		if v != "" {
			q.Set(k, v)
		}
	}
	set("tail", in.Tail)
	set("since", in.Since)
	set("until", in.Until)
	set("stderr", in.Stderr)
	if in.Follow {
		q.Set("follow", "true")
	}
	if in.Timestamps {
		q.Set("timestamps", "true")
	}
	return pass(ctx, func(ctx context.Context) (io.ReadCloser, error) {
		return vmm.GuestLogs(ctx, c.UUID, strings.TrimPrefix(name, "/"), q)
	})
}

func (s *Server) serialLogs(ctx context.Context, in *streamInput) (func(huma.Context), error) {
	c, err := s.find(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	tail, _ := strconv.Atoi(in.Tail) // digits by its pattern; "" is all
	return s.hostLog(ctx, c, vmmapi.LogQuery{Channel: in.Channel, Tail: tail, Since: in.Since, Until: in.Until, Follow: in.Follow, Timestamps: in.Timestamps})
}

// pass opens a stream of text and returns what copies it, piece by piece.
func pass(ctx context.Context, open func(context.Context) (io.ReadCloser, error)) (func(huma.Context), error) {
	body, err := open(ctx)
	if err != nil {
		return nil, err
	}
	return func(hc huma.Context) {
		defer body.Close()
		hc.SetHeader("Content-Type", "text/plain; charset=utf-8")
		hc.SetHeader("Cache-Control", "no-store")
		var rc *http.ResponseController
		if w, ok := hc.BodyWriter().(http.ResponseWriter); ok {
			rc = http.NewResponseController(w)
		}
		buf := make([]byte, 32<<10)
		for {
			n, err := body.Read(buf)
			if n > 0 {
				if _, werr := hc.BodyWriter().Write(buf[:n]); werr != nil {
					return
				}
				if rc != nil {
					_ = rc.Flush() // the next write tells
				}
			}
			if err != nil {
				return
			}
		}
	}, nil
}
