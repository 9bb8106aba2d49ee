package cli

import (
	"fmt"
	"io"
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

// columns is the width of the terminal that w is, or 0.
func columns(w io.Writer) int {
	f, ok := w.(*os.File)
	if !ok || !isatty.IsTerminal(f.Fd()) {
		return 0
	}
	n, _, err := term.GetSize(int(f.Fd())) //nolint:gosec // a descriptor is small
	if err != nil || n < 1 {
		return 80
	}
	return n
}

func runTool(name string, arg ...string) error {
	c := exec.Command(name, arg...) //nolint:noctx // it has the terminal, and Ctrl-C
	c.Stdin, c.Stdout, c.Stderr = os.Stdin, os.Stdout, os.Stderr
	return c.Run()
}
