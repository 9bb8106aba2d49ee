package collateral_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/confidential-cloud/phala/attest/collateral"
)

// A line end that stands elsewhere is another text of the same certificate.
func TestLinesStandWhereTheyMust(t *testing.T) {
	const end = "-----END CERTIFICATE-----"
	chain := set(t).TCBInfoIssuerChain
	text := string(chain[:bytes.Index(chain, []byte(end))])   // the first certificate
	at := strings.LastIndexByte(text[:len(text)-1], '\n') + 2 // inside of its last line
	sound := text + end + "\n"
	if _, err := collateral.ParseChain([]byte(sound), 1); err != nil {
		t.Fatal(err)
	}
	for name, bad := range map[string]string{
		"one more inside the last line": text[:at] + "\n" + text[at:] + end + "\n",
		"one more at the end":           text + "\n" + end + "\n",
		"the last one missing":          text[:len(text)-1] + end + "\n",
		"the last one further up":       text[:at] + "\n" + text[at:len(text)-1] + end + "\n",
		"carriage returns":              strings.ReplaceAll(sound, "\n", "\r\n"),
		"none after the certificate":    sound[:len(sound)-1] + " ",
	} {
		if _, err := collateral.ParseChain([]byte(bad), 1); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
