package compose

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/image"
	"github.com/docker/docker/api/types/registry"

	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/guest-agent/disk"
	"github.com/confidential-cloud/phala/guest-agent/guestapi"
	"github.com/confidential-cloud/phala/guest-agent/secrets"
	"github.com/confidential-cloud/phala/keys"
)

// ReasonPull is of an image that could not be had, ReasonSpace of a full data disk.
const (
	ReasonPull  = "image-not-pulled"
	ReasonSpace = "data-disk-full"
)

// spaceLeft is what a pull leaves free on the data disk, in bytes: a full one would
// stop the app's databases.
const spaceLeft = 256 << 20

// progressEvery bounds how often the progress of a pull is told.
const progressEvery = time.Second

// Progress is told how far a pull is. Done and total are bytes of the layers that
// were announced so far: total grows.
type Progress func(p guestapi.PullProgress)

// missing are the images that are not here, or that Compose would ask for again.
func (e *Engine) missing(ctx context.Context, all []wanted, again bool) ([]wanted, error) {
	var out []wanted
	for _, w := range all {
		switch w.policy {
		case "never", "build":
			continue
		case "", "missing", "if_not_present":
		default:
			if again { // always, daily, every_...: Compose pulls by itself; nothing to win for a tag that moves
				continue
			}
		}
		_, err := e.cli.ImageInspect(ctx, w.ref)
		if err == nil {
			continue
		}
		if !errdefs.IsNotFound(err) {
			return nil, cvm.Errorf(cvm.Unavailable, "docker engine: looking for image %s: %w", w.ref, err).WithReason(ReasonDaemon)
		}
		out = append(out, w)
	}
	return out, nil
}

// pull gets one image; the registry's credentials go to their own registry only.
func (e *Engine) pull(ctx context.Context, w wanted, l *secrets.Login, tell Progress) error {
	o := image.PullOptions{Platform: w.platform}
	if l != nil && registryOf(w.ref) == orHub(hubName(l.Registry)) {
		b, err := json.Marshal(registry.AuthConfig{Username: l.Username, Password: l.Password(), ServerAddress: l.Registry})
		if err != nil {
			return err
		}
		o.RegistryAuth = base64.URLEncoding.EncodeToString(b)
	}
	rd, err := e.cli.ImagePull(ctx, w.ref, o)
	if err == nil {
		defer rd.Close()
		err = e.follow(ctx, w.ref, rd, tell)
	}
	if err == nil || ctx.Err() != nil {
		return errors.Join(err, ctx.Err())
	}
	if cvm.ReasonOf(err) == ReasonSpace {
		return err
	}
	text := err.Error()
	if l != nil {
		text = redact(text, []keys.EnvVar{{Value: l.Password()}})
	}
	return cvm.Errorf(cvm.Unavailable, "pulling image %s: %s", w.ref, text).WithReason(ReasonPull).
		WithFix("check the name, that the registry is up, and " + secrets.EnvUsername + "/" + secrets.EnvPassword + "/" + secrets.EnvRegistry + " for a private one")
}

// layerLine is one line of the engine's answer to a pull.
type layerLine struct {
	ID       string `json:"id"`
	Status   string `json:"status"`
	Error    string `json:"error"`
	Progress struct {
		Current int64 `json:"current"`
		Total   int64 `json:"total"`
	} `json:"progressDetail"`
}

// layers adds up a pull's lines.
type layers struct{ done, total map[string]int64 }

func (l *layers) add(m layerLine) {
	switch {
	case m.Status == "Downloading" && m.Progress.Total > 0:
		l.done[m.ID], l.total[m.ID] = min(m.Progress.Current, m.Progress.Total), m.Progress.Total
	case m.Status == "Download complete" || m.Status == "Pull complete":
		l.done[m.ID] = l.total[m.ID]
	}
}

func (l *layers) sum() (done, total int64) {
	for id, t := range l.total {
		done, total = done+l.done[id], total+t
	}
	return done, total
}

// follow reads the pull to its end and tells how far it is, at most once a second.
func (e *Engine) follow(ctx context.Context, ref string, rd io.Reader, tell Progress) error {
	l := layers{map[string]int64{}, map[string]int64{}}
	var last time.Time
	say := func(state string) {
		if tell != nil {
			done, total := l.sum()
			tell(guestapi.PullProgress{Image: ref, State: state, Done: done, Total: total})
		}
	}
	dec := json.NewDecoder(rd)
	for {
		var m layerLine
		err := dec.Decode(&m)
		if errors.Is(err, io.EOF) {
			say("done")
			return nil
		}
		if err != nil {
			return fmt.Errorf("the engine's progress: %w", err)
		}
		if m.Error != "" {
			return errors.New(m.Error)
		}
		l.add(m)
		if now := e.now(); now.Sub(last) >= progressEvery {
			last = now
			if err := e.space(); err != nil {
				return err
			}
			say("pulling")
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
}

// space refuses to fill the data disk.
func (e *Engine) space() error {
	_, free, err := disk.Usage(e.cfg.DataDir)
	if err == nil && free < spaceLeft {
		return cvm.Errorf(cvm.Exhausted, "the data disk has %d MB left", free>>20).WithReason(ReasonSpace).WithFix("resize the disk with `phala cvms resize`")
	}
	return nil
}

// registryOf is the host of an image's registry.
func registryOf(ref string) string {
	host, _, ok := strings.Cut(ref, "/")
	if !ok || (!strings.ContainsAny(host, ".:") && host != "localhost") {
		return "docker.io"
	}
	return hubName(host)
}

func hubName(host string) string {
	switch host {
	case "index.docker.io", "registry-1.docker.io", "registry.hub.docker.com":
		return "docker.io"
	}
	return host
}
