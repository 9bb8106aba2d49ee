package devcloud

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"strings"

	"github.com/confidential-cloud/phala/templates"
	"github.com/confidential-cloud/phala/templates/builder"
)

// prepareHello builds the catalogue's hello from the repository (nothing is
// downloaded for it) and writes its compose file with the image pinned by digest.
func (c *Cloud) prepareHello(ctx context.Context, note func(string, ...any)) error {
	digest, err := builder.BuildHello(ctx, c.cfg.Source, c.registry)
	if err != nil {
		return err
	}
	t, err := templates.Get("hello")
	if err != nil {
		return err
	}
	name := builder.HelloRepo + ":" + builder.HelloTag
	if !strings.Contains(t.Compose, name) {
		return fmt.Errorf("the catalogue's hello does not use %s", name)
	}
	if err := mkdirs(c.state.Path("hello")); err != nil {
		return err
	}
	note("%s is %s", name, digest)
	return writeFile(c.HelloCompose(), []byte(strings.ReplaceAll(t.Compose, name, builder.HelloRepo+"@"+digest)))
}

// HelloCompose is hello's compose file as it is deployed.
func (c *Cloud) HelloCompose() string { return c.state.Path("hello", "docker-compose.yml") }

// AppURL is where the gateway serves an app's default port.
func (c *Cloud) AppURL(appID string) string {
	host := appID + "." + c.cfg.BaseDomain
	if c.cfg.Ports.Gateway == 443 {
		return "https://" + host + "/"
	}
	return "https://" + net.JoinHostPort(host, strconv.Itoa(c.cfg.Ports.Gateway)) + "/"
}

// appURL finds an app's machine by name and says where it is served.
func (c *Cloud) appURL(ctx context.Context, name string) (string, error) {
	cl, err := c.VMM()
	if err != nil {
		return "", err
	}
	vms, err := cl.List(ctx)
	if err != nil {
		return "", err
	}
	for _, vm := range vms {
		if vm.Spec.Name == name {
			return c.AppURL(vm.Spec.AppID.String()), nil
		}
	}
	return "", fmt.Errorf("no machine is called %q", name)
}

// PrepareHello is prepareHello for callers without a progress display.
func (c *Cloud) PrepareHello(ctx context.Context) error {
	return c.prepareHello(ctx, func(string, ...any) {})
}
