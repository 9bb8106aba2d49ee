package cloudapi

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/url"

	"github.com/confidential-cloud/phala/cvm"
)

// Me asks who the key belongs to.
func (c *Client) Me(ctx context.Context) (out CurrentUser, err error) {
	return out, c.Do(ctx, "GET", "/auth/me", nil, &out)
}

// Nodes lists the nodes with room.
func (c *Client) Nodes(ctx context.Context) (out AvailableNodes, err error) {
	return out, c.Do(ctx, "GET", "/nodes", nil, &out)
}

// InstanceTypes lists sizes (public).
func (c *Client) InstanceTypes(ctx context.Context) (out InstanceTypes, err error) {
	return out, c.Do(ctx, "GET", "/instance-types", nil, &out)
}

// OSImages lists guest images.
func (c *Client) OSImages(ctx context.Context) (out Page[OSImage], err error) {
	return out, c.Do(ctx, "GET", "/os-images?page=1&page_size=100", nil, &out)
}

// KMSList lists key management services.
func (c *Client) KMSList(ctx context.Context) (out Page[KMS], err error) {
	return out, c.Do(ctx, "GET", "/kms?page_size=100", nil, &out)
}

// KMSInfo inspects one KMS live; id may be an id, a slug or a kms type.
func (c *Client) KMSInfo(ctx context.Context, id string) (out KMSInfo, err error) {
	return out, c.Do(ctx, "GET", "/kms/"+seg(id)+"/info", nil, &out)
}

// EnvKey asks for an app's encryption key with both signatures. Check one of them
// against the KMS k256 key that the profile pins.
func (c *Client) EnvKey(ctx context.Context, kms, appID string) (out EnvKey, err error) {
	return out, c.Do(ctx, "GET", "/kms/"+seg(kms)+"/pubkey/"+seg(appID)+"?full=true", nil, &out)
}

// OnChain describes the chain and its contracts.
func (c *Client) OnChain(ctx context.Context, chain string) (out OnChain, err error) {
	return out, c.Do(ctx, "GET", "/kms/on-chain/"+seg(chain), nil, &out)
}

// TrustProfile fetches the cloud's trust profile: the bytes of the file that phala
// verify --trust reads. It comes from the party that is to be checked: compare it
// with one obtained another way before relying on it.
func (c *Client) TrustProfile(ctx context.Context) ([]byte, error) {
	rc, err := c.Stream(ctx, "GET", "/trust-profile", nil)
	if err != nil {
		return nil, err
	}
	defer rc.Close()
	b, err := io.ReadAll(io.LimitReader(rc, maxBody))
	if err != nil {
		return nil, cvm.Errorf(cvm.Unavailable, "reading the trust profile: %w", err)
	}
	return b, nil
}

// Provision asks for the exact app-compose and where it would run.
func (c *Client) Provision(ctx context.Context, r ProvisionRequest) (out Provisioned, err error) {
	return out, c.Do(ctx, "POST", "/cvms/provision", r, &out)
}

// Commit creates the CVM. Asking again with the same app id and compose hash
// returns the same CVM while it is being created.
func (c *Client) Commit(ctx context.Context, r CommitRequest) (out VM, err error) {
	return out, c.Do(ctx, "POST", "/cvms", r, &out)
}

// CVMs lists all CVMs of the workspace.
func (c *Client) CVMs(ctx context.Context) (out []CVMInfo, err error) {
	return out, c.Do(ctx, "GET", "/cvms", nil, &out)
}

// CVM gets one by name, uuid, cvm_ id, app id or instance id.
func (c *Client) CVM(ctx context.Context, id string) (out CVMDetail, err error) {
	return out, c.Do(ctx, "GET", "/cvms/"+seg(id), nil, &out)
}

// State gets a CVM's state now.
func (c *Client) State(ctx context.Context, id string) (out State, err error) {
	return out, c.Do(ctx, "GET", "/cvms/"+seg(id)+"/state", nil, &out)
}

// Start, Stop (at once), Shutdown (in order) and Restart begin an operation and
// return; follow it with Progress.
func (c *Client) Start(ctx context.Context, id string) (VM, error) { return c.power(ctx, id, "start") }

// Stop: see Start.
func (c *Client) Stop(ctx context.Context, id string) (VM, error) { return c.power(ctx, id, "stop") }

// Shutdown: see Start.
func (c *Client) Shutdown(ctx context.Context, id string) (VM, error) {
	return c.power(ctx, id, "shutdown")
}

// Restart: see Start.
func (c *Client) Restart(ctx context.Context, id string) (VM, error) {
	return c.power(ctx, id, "restart")
}

func (c *Client) power(ctx context.Context, id, verb string) (out VM, err error) {
	return out, c.Do(ctx, "POST", "/cvms/"+seg(id)+"/"+verb, nil, &out)
}

// Delete deletes a CVM; volumes is "keep" or "delete". Its progress ends with
// status deleted; the id stays readable for the stream until then.
func (c *Client) Delete(ctx context.Context, id, volumes string) error {
	return c.Do(ctx, "DELETE", "/cvms/"+seg(id)+"?volumes="+url.QueryEscape(volumes), nil, nil)
}

// ProvisionCompose prepares a new app-compose (send json.RawMessage or
// *appcompose.Document) for a CVM.
func (c *Client) ProvisionCompose(ctx context.Context, id string, compose any) (out ComposeProvisioned, err error) {
	return out, c.Do(ctx, "POST", "/cvms/"+seg(id)+"/compose_file/provision", compose, &out)
}

// UpdateCompose applies a prepared app-compose.
func (c *Client) UpdateCompose(ctx context.Context, id string, r ComposeUpdate) (out Accepted, err error) {
	return out, c.Do(ctx, "PATCH", "/cvms/"+seg(id)+"/compose_file", r, &out)
}

// UpdateEnvs replaces the environment.
func (c *Client) UpdateEnvs(ctx context.Context, id string, r EnvsUpdate) (out Accepted, err error) {
	return out, c.Do(ctx, "PATCH", "/cvms/"+seg(id)+"/envs", r, &out)
}

// Containers lists the app's containers.
func (c *Client) Containers(ctx context.Context, id string) (out Composition, err error) {
	return out, c.Do(ctx, "GET", "/cvms/"+seg(id)+"/composition", nil, &out)
}

// Stats gets the guest's system information.
func (c *Client) Stats(ctx context.Context, id string) (out Stats, err error) {
	return out, c.Do(ctx, "GET", "/cvms/"+seg(id)+"/stats", nil, &out)
}

// Attestation gets the guest's evidence summary; nonce (hex) may be empty.
func (c *Client) Attestation(ctx context.Context, id, nonce string) (out Attestation, err error) {
	p := "/cvms/" + seg(id) + "/attestation"
	if nonce != "" {
		p += "?nonce=" + url.QueryEscape(nonce)
	}
	return out, c.Do(ctx, "GET", p, nil, &out)
}

// Logs streams a container's log ("" = the first container) as plain text. Query
// keys: tail, since, until, follow, timestamps, stderr ("true").
func (c *Client) Logs(ctx context.Context, id, container string, q url.Values) (io.ReadCloser, error) {
	if q == nil {
		q = url.Values{}
	}
	if container != "" {
		q.Set("container", container)
	}
	return c.Stream(ctx, "GET", "/cvms/"+seg(id)+"/logs?"+q.Encode(), nil)
}

// SerialLogs streams the guest's console, or with ch=stdout or stderr what its
// hypervisor said. Query keys: ch, tail, follow, since, until, timestamps.
func (c *Client) SerialLogs(ctx context.Context, id string, q url.Values) (io.ReadCloser, error) {
	return c.Stream(ctx, "GET", "/cvms/"+seg(id)+"/serial-logs?"+q.Encode(), nil)
}

// Events lists what happened to a CVM after event seq.
func (c *Client) Events(ctx context.Context, id string, after int64) (out []Event, err error) {
	return out, c.Do(ctx, "GET", fmt.Sprintf("/cvms/%s/events?after=%d", seg(id), after), nil, &out)
}

// Progress follows a CVM's events after seq until it rests: running, stopped,
// failed or deleted with no operation left. fn sees each event. The context bounds
// the wait. A CVM that failed is not an error here: look at Done.
func (c *Client) Progress(ctx context.Context, id string, after int64, fn func(Event)) (done Done, err error) {
	body, err := c.Stream(ctx, "GET", fmt.Sprintf("/cvms/%s/progress?after=%d", seg(id), after), nil)
	if err != nil {
		return done, err
	}
	defer body.Close()
	err = readSSE(body, func(event string, data []byte) error {
		switch event {
		case "event":
			var e Event
			if err := json.Unmarshal(data, &e); err != nil {
				return err
			}
			if fn != nil {
				fn(e)
			}
		case "done":
			if err := json.Unmarshal(data, &done); err != nil {
				return err
			}
			return io.EOF
		}
		return nil
	})
	return done, err
}

// Apps lists apps, first page of 100.
func (c *Client) Apps(ctx context.Context) (out Apps, err error) {
	return out, c.Do(ctx, "GET", "/apps?page=1&page_size=100", nil, &out)
}

// App gets one app by id.
func (c *Client) App(ctx context.Context, appID string) (out App, err error) {
	return out, c.Do(ctx, "GET", "/apps/"+seg(appID), nil, &out)
}

// Revisions lists the app-composes an app has run, newest first.
func (c *Client) Revisions(ctx context.Context, appID string) (out Revisions, err error) {
	return out, c.Do(ctx, "GET", "/apps/"+seg(appID)+"/revisions?page_size=100", nil, &out)
}
