package cli

import (
	"errors"
	"io/fs"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/internal/composefile"
)

// dockerCmd drives the Docker of this machine; the cloud is not asked anything, and
// no password is kept here: docker's own credential store does that.
func (a *app) dockerCmd() *cobra.Command {
	return a.group("docker", "Build, push and try images with the Docker of this machine", a.dockerLoginCmd(), a.dockerBuildCmd(),
		a.dockerPushCmd(), a.dockerGenerateCmd(), a.dockerRunCmd())
}

func (a *app) dockerLoginCmd() *cobra.Command {
	var user, password, registry string
	c := &cobra.Command{Use: "login", Short: "Log in to an image registry (docker login)", Args: args(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			if password != "" {
				return usage("--password is not taken: other users of this machine can read arguments\nfix: docker asks for it, or takes it on stdin: docker login --password-stdin")
			}
			arg := []string{"login"}
			if user != "" {
				arg = append(arg, "--username", user)
			}
			return a.tool("docker", append(arg, notOption(registry)...)...)
		}}
	c.Flags().StringVarP(&user, "username", "u", "", "user name")
	c.Flags().StringVarP(&password, "password", "p", "", "")
	c.Flags().StringVarP(&registry, "registry", "r", "", "registry (default: Docker's own)")
	_ = c.Flags().MarkHidden("password")
	return c
}

// notOption gives a value as an argument that docker cannot take for an option.
func notOption(s string) []string {
	if s == "" {
		return nil
	}
	return []string{"--", s}
}

func (a *app) dockerBuildCmd() *cobra.Command {
	var image, tag, file string
	c := &cobra.Command{Use: "build", Short: "Build an image for the cloud's machines (docker build)", Args: args(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			if image == "" {
				return usage("which image? --image user/name")
			}
			name := image
			if tag != "" {
				name += ":" + tag
			}
			if strings.HasPrefix(name, "-") {
				return usage("%q is not the name of an image", name)
			}
			return a.tool("docker", "build", "--platform", "linux/amd64", "-t", name, "-f", a.path(first(file, "Dockerfile")), a.Workdir)
		}}
	c.Flags().StringVarP(&image, "image", "i", "", "image name")
	c.Flags().StringVarP(&tag, "tag", "t", "", "image tag")
	c.Flags().StringVarP(&file, "file", "f", "", "Dockerfile (default: ./Dockerfile)")
	return c
}

func (a *app) dockerPushCmd() *cobra.Command {
	var image string
	c := &cobra.Command{Use: "push", Short: "Push an image to its registry (docker push)", Args: args(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			if image == "" {
				return usage("which image? --image user/name:tag")
			}
			return a.tool("docker", append([]string{"push"}, notOption(image)...)...)
		}}
	c.Flags().StringVarP(&image, "image", "i", "", "image with its tag, like user/name:tag")
	return c
}

func (a *app) dockerGenerateCmd() *cobra.Command {
	var image, envFile, output, template string
	c := &cobra.Command{Use: "generate", Short: "Write a docker-compose.yml for an image", Args: args(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			if image == "" {
				return usage("which image? --image user/name:tag")
			}
			text, err := a.generate(image, envFile, template)
			if err != nil {
				return err
			}
			out := first(output, "docker-compose.yml")
			f, err := os.OpenFile(a.path(out), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644) //nolint:gosec // a file of the project, to be shared
			if errors.Is(err, fs.ErrExist) {
				return cvm.Errorf(cvm.Conflict, "%s is there already", out).WithFix("-o another-file.yml")
			} else if err != nil {
				return err
			}
			if _, err := f.WriteString(text); err != nil {
				return err
			}
			if err := f.Close(); err != nil {
				return err
			}
			return a.done(map[string]any{"file": out}, "wrote "+out)
		}}
	c.Flags().StringVarP(&image, "image", "i", "", "image name")
	c.Flags().StringVarP(&envFile, "env-file", "e", "", "environment file: its names go into the compose file, its values do not")
	c.Flags().StringVarP(&output, "output", "o", "", "file to write (default: docker-compose.yml)")
	c.Flags().StringVar(&template, "template", "", "compose file to begin with; ${IMAGE} in it is the image")
	return c
}

func (a *app) generate(image, envFile, template string) (string, error) {
	if strings.ContainsAny(image, "\"\n\r \\$") {
		return "", usage("%q is not the name of an image", image)
	}
	text := "services:\n  app:\n    image: \"" + image + "\"\n    restart: unless-stopped\n    ports:\n      - \"80:80\"\n"
	if template != "" {
		b, err := os.ReadFile(a.path(template))
		if err != nil {
			return "", cvm.Errorf(cvm.Invalid, "--template: %w", err)
		}
		text = strings.ReplaceAll(string(b), "${IMAGE}", image)
	}
	if envFile != "" {
		env, err := a.readEnv([]string{envFile})
		if err != nil {
			return "", err
		}
		if template == "" && len(env) > 0 {
			text += "    environment:\n"
			for _, n := range envNames(env) {
				text += "      " + n + ": ${" + n + "}\n"
			}
		}
	}
	f, err := composefile.Parse([]byte(text))
	if err == nil {
		err = f.Check()
	}
	return text, err
}

func (a *app) dockerRunCmd() *cobra.Command {
	var compose, envFile string
	var skip bool
	c := &cobra.Command{Use: "run", Short: "Run a compose file on this machine (docker compose up)", Args: args(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			file := a.path(first(compose, "docker-compose.yml"))
			if !exists(file) {
				return cvm.Errorf(cvm.Invalid, "there is no compose file %s", first(compose, "docker-compose.yml")).WithFix("-c path/to/docker-compose.yml")
			}
			arg := []string{"compose", "-f", file}
			if envFile != "" && !skip {
				arg = append(arg, "--env-file", a.path(envFile))
			}
			return a.tool("docker", append(arg, "up")...)
		}}
	c.Flags().StringVarP(&compose, "compose", "c", "", "compose file (default: docker-compose.yml)")
	c.Flags().StringVarP(&envFile, "env-file", "e", "", "environment file")
	c.Flags().BoolVar(&skip, "skip-env", false, "use no environment file")
	return c
}
