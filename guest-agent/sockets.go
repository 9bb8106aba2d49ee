package guestagent

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/confidential-cloud/phala/guest-agent/compose"
	"github.com/confidential-cloud/phala/guest-agent/guestapi"
)

// serviceSockets opens the sockets of the services that the app's policy limits, when
// their mounts ask for them. Who asks on such a socket is known by which file was
// mounted before the container's first instruction.
func (a *Agent) serviceSockets(ctx context.Context) compose.Sockets {
	dir := filepath.Join(filepath.Dir(a.cfg.DstackSock), "phala-sockets")
	opened := map[string]bool{}
	return compose.Sockets{
		Dstack: sameFile(a.cfg.DstackSock), Tappd: sameFile(a.cfg.TappdSock),
		Open: func(service string) (dstack, tappd string, err error) {
			dstack, tappd = filepath.Join(dir, service, "dstack.sock"), filepath.Join(dir, service, "tappd.sock")
			if opened[service] {
				return dstack, tappd, nil
			}
			b := a.backend.Load()
			if b == nil {
				return "", "", fmt.Errorf("sockets of service %s: the guest's own are not open yet", service)
			}
			// 0777 as the shared ones: whatever user the container runs as.
			if err := a.listen(ctx, "dstack.sock of "+service, dstack, 0o777, b.DstackOf(service)); err != nil {
				return "", "", err
			}
			if err := a.listen(ctx, "tappd.sock of "+service, tappd, 0o777, b.TappdOf(service)); err != nil {
				return "", "", err
			}
			opened[service] = true
			return dstack, tappd, nil
		},
	}
}

// sameFile is a path with its other name: /var/run is /run.
func sameFile(path string) []string {
	switch {
	case path == "":
		return nil
	case strings.HasPrefix(path, "/var/run/"):
		return []string{path, strings.TrimPrefix(path, "/var")}
	case strings.HasPrefix(path, "/run/"):
		return []string{path, "/var" + path}
	}
	return []string{path}
}

// present is the number of the present stage in progress texts, "10/10".
func (a *Agent) present() string {
	n, _, _ := strings.Cut(a.host.boot().Progress, " ")
	return n
}

// tellPull tells the host how far the pulls are.
func (a *Agent) tellPull(ctx context.Context) compose.Progress {
	stage := a.present()
	return func(p guestapi.PullProgress) {
		text := fmt.Sprintf("%s pulling %s (%.1f of %.1f MB)", stage, p.Image, float64(p.Done)/1e6, float64(p.Total)/1e6)
		if p.State == "done" {
			text = fmt.Sprintf("%s pulled %s (%.1f MB)", stage, p.Image, float64(p.Total)/1e6)
		}
		a.notify(ctx, guestapi.Notify{Event: "boot.progress", Payload: text})
	}
}

// tellImages tells the host how the images are named, and warns of those that a
// registry may exchange: the measurement says nothing about them.
func (a *Agent) tellImages(ctx context.Context) func([]guestapi.ImageUse) {
	return func(uses []guestapi.ImageUse) {
		if open := compose.Unpinned(uses); len(open) > 0 {
			a.log.Warn("images that are not named by digest: the compose hash does not say what runs", "services", open)
		}
		b, err := json.Marshal(uses)
		if err != nil {
			a.log.Warn("images", "err", err)
			return
		}
		a.notify(ctx, guestapi.Notify{Event: "images", Payload: string(b)})
	}
}
