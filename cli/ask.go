package cli

import (
	"bufio"
	"fmt"
	"strings"

	"github.com/confidential-cloud/phala/cvm"
)

// confirm asks for a yes. Without a terminal nothing is assumed: the error names
// the flag that says yes.
func (a *app) confirm(yes bool, flag, question string) error {
	if yes {
		return nil
	}
	if !a.TTY {
		return cvm.Errorf(cvm.Invalid, "%s (no terminal to ask at)", strings.TrimSuffix(question, "?")).WithFix("say it with " + flag)
	}
	answer, err := a.ask(question + " [y/N] ")
	if err != nil {
		return err
	}
	if answer = strings.ToLower(answer); answer != "y" && answer != "yes" {
		return cvm.Errorf(cvm.Precondition, "not confirmed, nothing was changed")
	}
	return nil
}

// ask reads one line.
func (a *app) ask(prompt string) (string, error) {
	fmt.Fprint(a.Stderr, prompt)
	if a.lines == nil { // one reader: a second would lose what the first read ahead
		a.lines = bufio.NewReader(a.Stdin)
	}
	line, err := a.lines.ReadString('\n')
	if err != nil && line == "" {
		return "", cvm.Errorf(cvm.Precondition, "no answer, nothing was changed")
	}
	return strings.TrimSpace(line), nil
}
