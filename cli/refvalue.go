package cli

import (
	"crypto/rand"
	"encoding/json"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/mod/sumdb/note"

	"github.com/confidential-cloud/phala/attest/refvalue"
	"github.com/confidential-cloud/phala/cvm"
)

func (a *app) feedCmd() *cobra.Command {
	return a.group("feed", "Reference values: what hardware, images and ACPI tables are admitted, as a signed feed",
		a.feedKeyCmd(), a.feedSignCmd(), a.feedVerifyCmd())
}

func (a *app) feedKeyCmd() *cobra.Command {
	var out, name string
	c := &cobra.Command{Use: "key --out FILE --name NAME", Short: "Make a key that signs feeds",
		Long: "Make a key that signs feeds. FILE receives the secret half, readable by you alone; the\npublic half, which verifiers pin, is printed. NAME says whose it is, for example values.example.org.",
		Args: args(cobra.NoArgs), RunE: func(*cobra.Command, []string) error { return a.feedKey(out, name) }}
	c.Flags().StringVarP(&out, "out", "o", "", "file for the secret key (must not be there)")
	c.Flags().StringVar(&name, "name", "", "name of the key, without spaces or +")
	return c
}

func (a *app) feedKey(out, name string) error {
	if strings.ContainsAny(name, "+ \t\n") || name == "" || out == "" {
		return usage("name the key (--name, without spaces or +) and a file for its secret half (--out)")
	}
	secret, public, err := note.GenerateKey(rand.Reader, name)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(a.path(out), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return usage("--out: %w", err)
	}
	_, err = f.WriteString(secret + "\n")
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return usage("--out: %w", err)
	}
	a.say("%s", a.good("secret key written to "+out))
	if a.json {
		return a.printJSON(map[string]any{"key": public, "file": out})
	}
	a.printf("%s\n", public)
	return nil
}

const feedSignLong = `Sign a draft: the JSON of docs/spec/reference-values.md in any layout. Its version must be
higher than that of every feed before it: verifiers refuse to go back.

The key is read from a file, never from an argument.`

func (a *app) feedSignCmd() *cobra.Command {
	var key, out string
	c := &cobra.Command{Use: "sign DRAFT --key FILE --out FILE", Short: "Sign a draft of reference values", Long: feedSignLong,
		Args: args(cobra.ExactArgs(1)), RunE: func(_ *cobra.Command, as []string) error { return a.feedSign(as[0], key, out) }}
	c.Flags().StringVar(&key, "key", "", "file of the secret key (phala measure feed key)")
	c.Flags().StringVarP(&out, "out", "o", "", "file to write")
	return c
}

func (a *app) feedSign(draft, key, out string) error {
	if key == "" || out == "" {
		return usage("name the file of the secret key (--key) and the file to write (--out)")
	}
	b, err := readBounded(a.path(draft), refvalue.MaxFeed)
	if err != nil {
		return err
	}
	v, err := refvalue.ParseDraft(b)
	if err != nil {
		return err
	}
	secret, err := readBounded(a.path(key), 4<<10)
	if err != nil {
		return err
	}
	signed, err := refvalue.Sign(v, strings.TrimSpace(string(secret)))
	if err != nil {
		return err
	}
	if err := a.writeOut(out, signed); err != nil {
		return err
	}
	return a.printFeed(v, "signed")
}

func (a *app) feedVerifyCmd() *cobra.Command {
	var keys []string
	var after uint64
	c := &cobra.Command{Use: "verify FILE --key KEY", Aliases: []string{"show"}, Short: "Verify a feed and show what it says",
		Long: "Verify a feed (- for stdin) and show what it says. KEY is the public half, as feed key prints\nit. Without a key nothing is verified, and the answer says so.",
		Args: args(cobra.ExactArgs(1)), RunE: func(_ *cobra.Command, as []string) error { return a.feedVerify(as[0], keys, after) }}
	c.Flags().StringArrayVar(&keys, "key", nil, "pinned key: one of them must have signed (may be repeated)")
	c.Flags().Uint64Var(&after, "after", 0, "refuse versions below this one")
	return c
}

func (a *app) feedVerify(file string, keys []string, after uint64) error {
	b, err := a.readInput(file)
	if err != nil {
		return err
	}
	if len(keys) == 0 {
		text, _, ok := strings.Cut(string(b), "\n\n")
		if !ok {
			return cvm.Errorf(cvm.Invalid, "this is no signed feed")
		}
		v, err := refvalue.Parse([]byte(text + "\n"))
		if err != nil {
			return err
		}
		a.say("%s", a.warn("NOT VERIFIED: name the key that must have signed with --key"))
		return a.printFeed(v, "unverified")
	}
	v, mark, err := refvalue.Open(b, keys, refvalue.Mark{}, a.Now())
	if err == nil && mark.Version < after {
		err = cvm.Errorf(cvm.Denied, "reference values: version %d, want at least %d", mark.Version, after).WithReason(refvalue.ReasonOlder)
	}
	if err != nil {
		return err
	}
	return a.printFeed(v, "verified")
}

func (a *app) printFeed(v refvalue.Values, state string) error {
	if a.json {
		return a.printJSON(map[string]any{"state": state, "values": v})
	}
	a.printFields([]field{{"State", state}, {"Version", strconv.FormatUint(v.Version, 10)},
		{"Issued", v.Issued.Format(time.RFC3339)}, {"Expires", v.Expires.Format(time.RFC3339)},
		{"Evaluation number", num(&v.MinEvalNumber)}, {"Denied advisories", strings.Join(v.DenyAdvisories, ", ")},
		{"Any TDX module", yesNo(v.AnyTDXModule)}})
	for _, m := range v.TDXModules {
		a.printf("TDX module %s %s %s\n", m.MRSeam, m.Version, m.Status)
	}
	for _, s := range v.SNP {
		b, err := json.Marshal(s.MinTCB)
		if err != nil {
			return err
		}
		a.printf("SEV-SNP %s at least %s\n", s.Product, b)
	}
	for _, m := range v.Images {
		a.printf("image %s %s %s, %d VM shapes with ACPI tables, %d SEV-SNP digests\n", m.OSImageHash, strings.TrimSpace(m.Version+" "+m.Flavour), m.Status, len(m.ACPI), len(m.SNPDigests))
	}
	return nil
}
