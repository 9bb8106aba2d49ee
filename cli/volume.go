package cli

import (
	"path"
	"strings"

	"github.com/spf13/cobra"

	"github.com/confidential-cloud/phala/internal/registry/volume"
)

func (a *app) volumeCmd() *cobra.Command {
	return a.group("volume", "Verity volumes: read-only disks that an app's measurement covers", a.volumeMakeCmd())
}

const volumeMakeLong = `Pull a container image, unpack it into a compressed file system and put a dm-verity tree
behind it, in one file. A CVM whose app-compose names the printed root hash starts
containers from that file without pulling or unpacking: blocks are checked as they are
read. The same image gives the same file, so that anybody can check the hash.

Give the file to the node (its volume directory) and add the printed entry to
verity_volumes of the app-compose. The compose file goes on naming the image as before.
Needs mksquashfs (squashfs-tools 4.5 or newer). Private registries: docker login first.`

func (a *app) volumeMakeCmd() *cobra.Command {
	var out string
	c := &cobra.Command{Use: "make <image>", Short: "Make a verity volume of a container image", Long: volumeMakeLong, Args: args(cobra.ExactArgs(1)),
		Example: "  phala volume make docker.io/vllm/vllm-openai@sha256:... -o vllm.img",
		RunE: func(c *cobra.Command, as []string) error {
			if out == "" {
				return usage("--out is missing: where to?")
			}
			img, ref, err := volume.Pull(c.Context(), as[0])
			if err != nil {
				return err
			}
			m, err := volume.Make(c.Context(), img, ref, a.path(out))
			if err != nil {
				return err
			}
			if a.json {
				return a.printJSON(m)
			}
			name := path.Base(out)
			a.say("%s", a.good("made "+out+", "+mib(m.Size)))
			a.printFields([]field{{"verity_root", m.Root}, {"image names", strings.Join(m.Manifest.Names, " ")},
				{"verity_volumes", `{"source":"` + name + `","verity_root":"` + m.Root + `","target":"/run/volumes/` + strings.TrimSuffix(name, path.Ext(name)) + `"}`}})
			return nil
		}}
	c.Flags().StringVarP(&out, "out", "o", "", "file to write; it must not exist")
	return c
}
