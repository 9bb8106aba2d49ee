package cli

import (
	"bytes"
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/keys"
	"github.com/confidential-cloud/phala/vmm/image/oci"
	"github.com/confidential-cloud/phala/vmm/vmmapi"
)

func (a *app) imageCmd() *cobra.Command {
	return a.group("image", "Publish guest images, and bring them to nodes (for operators)", a.imagePushCmd(), a.imagePullCmd(), a.imageListCmd(), a.imageRemoveCmd(), a.imageGCCmd())
}

const imagePushLong = `Check an image directory (as make image writes it) and store it in a container registry:
one blob per file, the same directory always under the same digest. With --sign it is
signed, in cosign's format, so that nodes with that key take it and no other.

A pair of keys: openssl genpkey -algorithm ed25519 -out image.key
                openssl pkey -in image.key -pubout -out image.pub`

func (a *app) imagePushCmd() *cobra.Command {
	var user, passwordFile, key string
	c := &cobra.Command{Use: "push <directory> <host/repository:tag>", Short: "Publish a guest image in a registry", Long: imagePushLong, Args: args(cobra.ExactArgs(2)),
		RunE: func(c *cobra.Command, as []string) error {
			cfg := oci.PushConfig{Ref: as[1], Progress: func(file string, n int64) { a.say("%s (%s)", file, mib(n)) }}
			if (user == "") != (passwordFile == "") {
				return usage("--user and --password-file go together")
			}
			if user != "" {
				b, err := readBounded(a.path(passwordFile), 4096)
				if err != nil {
					return err
				}
				cfg.Login = oci.Login{User: user, Password: keys.NewSecret(bytes.TrimSpace(b))}
			}
			if key != "" {
				s, err := oci.LoadSigner(a.path(key))
				if err != nil {
					return err
				}
				cfg.Signer = s
			}
			p, err := oci.Push(c.Context(), a.path(as[0]), cfg)
			if err != nil {
				return err
			}
			if a.json {
				return a.printJSON(p)
			}
			a.say("%s", a.good("pushed "+mib(p.Bytes)+map[bool]string{true: ", signed", false: ", not signed"}[p.Signed]))
			a.printFields([]field{{"reference", p.Ref}, {"os_image_hash", p.Hash.String()}})
			return nil
		}}
	f := c.Flags()
	f.StringVar(&user, "user", "", "user of the registry")
	f.StringVar(&passwordFile, "password-file", "", "file with the user's password or token")
	f.StringVar(&key, "sign", "", "private key to sign with (PEM: Ed25519 or ECDSA P-256)")
	return c
}

func (a *app) imagePullCmd() *cobra.Command {
	var f vmmFlags
	var hash string
	var q vmmapi.PullRequest
	c := &cobra.Command{Use: "pull <host/repository@sha256:...>", Short: "Bring a guest image to a node", Args: args(cobra.ExactArgs(1)),
		Long: "Bring a guest image to a node. The digest, --hash, or the node's image keys say which image it\nmust be; one of them is needed. A pull that broke off goes on where it stopped.",
		RunE: func(c *cobra.Command, as []string) error {
			q.Ref = as[0]
			if hash != "" {
				if err := q.Hash.UnmarshalText([]byte(hash)); err != nil {
					return usage("--hash: %w", err)
				}
			}
			v, err := a.vmm(f)
			if err != nil {
				return err
			}
			p, err := v.Pull(c.Context(), q)
			if err != nil {
				return err
			}
			if p, err = a.followPull(c.Context(), v, p); err != nil {
				return err
			}
			if err := ended(p); err != nil {
				return err
			}
			return a.done(p, "image "+p.Name+" ("+p.Hash.String()+") is on the node")
		}}
	f.add(c.Flags())
	c.Flags().StringVar(&hash, "hash", "", "os_image_hash that it must have")
	c.Flags().StringVar(&q.Name, "as", "", "name on the node (default: phala-<version>)")
	return c
}

// followPull shows a pull's progress until it ends; leaving does not end it.
func (a *app) followPull(ctx context.Context, v *vmmapi.Client, p vmmapi.Pull) (vmmapi.Pull, error) {
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for shown := ""; ; {
		line := p.Phase
		if p.Phase == vmmapi.PullDownloading && p.TotalBytes > 0 {
			line = fmt.Sprintf("%s %d %% of %s", p.Phase, 100*p.DoneBytes/p.TotalBytes/10*10, mib(p.TotalBytes))
		}
		if line != shown && !a.json {
			a.say("%s", line)
		}
		if shown = line; p.Ended() {
			return p, nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return p, ctx.Err()
		}
		all, err := v.Pulls(ctx)
		if err != nil {
			return p, err
		}
		here := false
		for _, o := range all {
			if o.ID == p.ID && o.StartedAt.Equal(p.StartedAt) {
				p, here = o, true
			}
		}
		if !here {
			return p, cvm.Errorf(cvm.Unavailable, "the VMM does not know the pull any more: it was restarted").WithFix("pull again: it goes on where it stopped")
		}
	}
}

func (a *app) imageListCmd() *cobra.Command {
	var f vmmFlags
	c := &cobra.Command{Use: "list", Aliases: []string{"ls"}, Short: "List the guest images of a node", Args: args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			v, err := a.vmm(f)
			if err != nil {
				return err
			}
			images, err := v.Images(c.Context())
			if err != nil {
				return err
			}
			return printList(a, images, "no images", []string{"NAME", "VERSION", "DEV", "OS_IMAGE_HASH"}, func(i vmmapi.Image) []string {
				return []string{i.Name, i.Version, yesNo(i.IsDev), i.Hash.String()}
			})
		}}
	f.add(c.Flags())
	return c
}

func (a *app) imageRemoveCmd() *cobra.Command {
	var f vmmFlags
	c := &cobra.Command{Use: "rm <name>", Short: "Remove a guest image that no VM uses from a node", Args: args(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, as []string) error {
			v, err := a.vmm(f)
			if err != nil {
				return err
			}
			if err := v.DeleteImage(c.Context(), as[0]); err != nil {
				return err
			}
			return a.done(map[string]any{"removed": as[0]}, "removed "+as[0])
		}}
	f.add(c.Flags())
	return c
}

func (a *app) imageGCCmd() *cobra.Command {
	var f vmmFlags
	var q vmmapi.GCRequest
	c := &cobra.Command{Use: "gc", Short: "Remove the guest images that no VM of a node uses", Args: args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			v, err := a.vmm(f)
			if err != nil {
				return err
			}
			r, err := v.CollectImages(c.Context(), q)
			if err != nil {
				return err
			}
			if a.json {
				return a.printJSON(r)
			}
			for _, n := range r.Removed {
				a.printf("%s\n", n)
			}
			a.say("%s", a.good(map[bool]string{true: "would remove ", false: "removed "}[r.DryRun]+plural(len(r.Removed), "image")+", "+mib(r.Bytes)))
			return nil
		}}
	f.add(c.Flags())
	c.Flags().IntVar(&q.Keep, "keep", 2, "spare this many of the newest unused ones")
	c.Flags().BoolVar(&q.DryRun, "dry-run", false, "only list them")
	return c
}
