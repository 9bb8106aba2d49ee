package cli

import (
	"fmt"
	"os"
	"os/exec"

	"github.com/mattn/go-isatty"
	"golang.org/x/term"
)

// terminal reports whether a person sits there, and how to ask for a secret.
func terminal() (bool, func(string) ([]byte, error)) {
	if !isatty.IsTerminal(os.Stdin.Fd()) || !isatty.IsTerminal(os.Stderr.Fd()) {
		return false, nil
	}
	return true, func(prompt string) ([]byte, error) {
		fmt.Fprint(os.Stderr, prompt)
		b, err := term.ReadPassword(int(os.Stdin.Fd()))
		fmt.Fprintln(os.Stderr)
		return b, err
	}
}

func runTool(name string, arg ...string) error {
	c := exec.Command(name, arg...) //nolint:noctx // it has the terminal, and Ctrl-C
	c.Stdin, c.Stdout, c.Stderr = os.Stdin, os.Stdout, os.Stderr
	return c.Run()
}
