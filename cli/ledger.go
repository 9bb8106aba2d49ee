package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/internal/profile"
	"github.com/confidential-cloud/phala/kms/kmsapi"
	"github.com/confidential-cloud/phala/ledger"
	"github.com/confidential-cloud/phala/verify"
)

const ledgerLong = `The KMS writes every decision (keys released, refused, members joined) into a public,
append-only ledger that a majority of its members sign. Here each entry is checked
against the signed root, and each newest root against the last one that this machine
has seen: a ledger that was shortened, changed or forked is found out.`

// ledgerAtOnce is how many entries are asked for at the same time.
const ledgerAtOnce = 8

func (a *app) ledgerCmd() *cobra.Command {
	g := a.group("ledger", "The public record of every key release", a.watchable(a.ledgerStatusCmd()), a.watchable(a.ledgerListCmd()), a.ledgerShowCmd(), a.ledgerAuditCmd())
	g.Long = ledgerLong
	g.PersistentFlags().String("trust", "", "trust profile (default: the login's)")
	return g
}

// ledgerSource is where a ledger is read (kmsapi.Client). It is believed in nothing.
type ledgerSource interface {
	Checkpoint(ctx context.Context) ([]byte, error)
	Leaf(ctx context.Context, index int64) ([]byte, error)
	Inclusion(ctx context.Context, index, size int64) ([][]byte, error)
	Consistency(ctx context.Context, from, to int64) ([][]byte, error)
}

// book is a ledger under the newest checkpoint that its members signed.
type book struct {
	kms  ledgerSource
	stop func()
	note []byte
	at   ledger.Checkpoint
	seen ledger.Checkpoint // by this machine before; Size 0: none
	file string            // where the newest one is remembered
}

// openLedger reads the newest checkpoint and compares it with the remembered one.
func (a *app) openLedger(c *cobra.Command) (*book, error) {
	s, err := a.session()
	if err != nil {
		return nil, err
	}
	trust, _ := c.Flags().GetString("trust") // registered by the group
	t, _, err := a.trust(s, trust)
	if err != nil {
		return nil, err
	}
	kms, err := kmsapi.New(kmsapi.Config{URLs: t.KMS.URLs, RootSPKI: t.KMS.RootSPKI})
	if err != nil {
		return nil, err
	}
	b := &book{kms: kms, stop: kms.Close, file: filepath.Join(s.dir, "ledger", fileWord(t.LedgerKeys.Origin)+".note")}
	if err := b.open(c.Context(), t.LedgerKeys); err != nil {
		kms.Close()
		return nil, err
	}
	return b, nil
}

// fileWord makes an origin a file's name.
func fileWord(s string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' {
			return r
		}
		return '_'
	}, s)
}

func (b *book) open(ctx context.Context, keys ledger.Keys) (err error) {
	if b.note, err = b.kms.Checkpoint(ctx); err != nil {
		return err
	}
	if b.at, err = keys.Open(b.note); err != nil {
		return err
	}
	old, err := os.ReadFile(b.file)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return b.remember()
	case err != nil:
		return err
	}
	if b.seen, err = keys.Open(old); err != nil {
		return cvm.Errorf(cvm.Precondition, "the checkpoint remembered in %s is not signed by this trust profile's ledger keys: %w", b.file, err).
			WithFix("if the trust profile is right and the cloud was made anew, remove the file; else ask why its ledger keys changed")
	}
	if err := b.extends(ctx); err != nil {
		return err
	}
	return b.remember()
}

// extends checks that nothing of what was seen before is gone or changed. The evidence
// of a fork is the two signed checkpoints, so both are kept.
func (b *book) extends(ctx context.Context) error {
	forked := func(why string) error {
		kept := b.file + ".other"
		if err := profile.WriteFile(kept, b.note); err != nil {
			return err
		}
		return cvm.Errorf(cvm.Denied, "the ledger does not contain the one that this machine has seen (%d entries, now %d): %s", b.seen.Size, b.at.Size, why).
			WithReason("ledger-forked").WithFix("believe neither; keep both signed checkpoints as proof: " + b.file + " and " + kept)
	}
	small, large := b.seen, b.at
	if b.at.Size < b.seen.Size {
		small, large = b.at, b.seen
	}
	if small.Size == 0 {
		if large.Size == b.seen.Size && large.Size > 0 {
			return forked("it is empty")
		}
		return nil
	}
	var proof [][]byte
	if small.Size < large.Size {
		var err error
		if proof, err = b.kms.Consistency(ctx, small.Size, large.Size); cvm.CodeOf(err) == cvm.NotFound {
			return forked("it is shorter")
		} else if err != nil {
			return err
		}
	}
	if err := ledger.CheckConsistency(small.Size, small.Root, large.Size, large.Root, proof); err != nil {
		return forked(err.Error())
	}
	if b.at.Size < b.seen.Size { // a member that is a little behind: what was seen is newer, and signed as well
		note, err := os.ReadFile(b.file)
		if err != nil {
			return err
		}
		b.at, b.note = b.seen, note
	}
	return nil
}

func (b *book) remember() error {
	if err := os.MkdirAll(filepath.Dir(b.file), 0o700); err != nil {
		return err
	}
	return profile.WriteFile(b.file, b.note)
}

// entry reads one leaf and checks that it is in the signed tree.
func (b *book) entry(ctx context.Context, i int64) (ledgerEntry, error) {
	e := ledgerEntry{Index: i}
	raw, err := b.kms.Leaf(ctx, i)
	if err != nil {
		return e, err
	}
	proof, err := b.kms.Inclusion(ctx, i, b.at.Size)
	if err != nil {
		return e, err
	}
	if err := ledger.CheckInclusion(raw, i, b.at.Size, b.at.Root, proof); err != nil {
		return e, err
	}
	e.Leaf, err = ledger.ParseLeaf(raw)
	return e, err
}

// ledgerEntry is a leaf with its place.
type ledgerEntry struct {
	Index int64 `json:"index"`
	ledger.Leaf
}

// ledgerStatus is the JSON form of a ledger's state.
type ledgerStatus struct {
	Origin     string `json:"origin"`
	Size       int64  `json:"size"`
	Root       string `json:"root"`
	SeenBefore int64  `json:"seen_before"` // entries of the checkpoint that was compared, 0: none
	Checkpoint string `json:"checkpoint"`
}

func (b *book) status() ledgerStatus {
	return ledgerStatus{Origin: b.at.Origin, Size: b.at.Size, Root: fmt.Sprintf("%x", b.at.Root), SeenBefore: b.seen.Size, Checkpoint: string(b.note)}
}

func (a *app) ledgerStatusCmd() *cobra.Command {
	return &cobra.Command{Use: "status", Short: "The newest signed checkpoint, compared with the last one seen here", Args: args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			b, err := a.openLedger(c)
			if err != nil {
				return err
			}
			defer b.stop()
			if a.json {
				return a.printJSON(b.status())
			}
			compared := "nothing: the first look from this machine"
			if b.seen.Size > 0 {
				compared = fmt.Sprintf("all %d entries that were seen before, unchanged", b.seen.Size)
			}
			a.printFields([]field{{"Ledger", b.at.Origin}, {"Entries", fmt.Sprint(b.at.Size)}, {"Root", fmt.Sprintf("%x", b.at.Root)}, {"Contains", compared}})
			return nil
		}}
}

// ledgerFilter chooses entries.
type ledgerFilter struct {
	app, instance, kind string
	count               int
}

func (f *ledgerFilter) matches(l ledger.Leaf) bool {
	return (f.app == "" || l.AppID == strings.TrimPrefix(strings.TrimPrefix(strings.ToLower(f.app), "app_"), "0x")) &&
		(f.instance == "" || l.InstanceID == strings.ToLower(f.instance)) && (f.kind == "" || l.Kind == f.kind)
}

func (a *app) ledgerListCmd() *cobra.Command {
	var f ledgerFilter
	c := &cobra.Command{Use: "list", Aliases: []string{"ls"}, Short: "The newest entries, each proved to be in the signed ledger", Args: args(cobra.NoArgs),
		Example: "  phala ledger list --app-id 599ce8d0aef633e3c37a6a0cd0c71c9c77d9c9c0\n  phala ledger list --kind deny -n 5",
		RunE: func(c *cobra.Command, _ []string) error {
			if f.count < 1 || f.count > 1000 {
				return usage("-n %d is not between 1 and 1000", f.count)
			}
			if f.kind != "" && !slices.Contains(ledger.Kinds(), f.kind) {
				return usage("--kind %q is no kind of ledger entry; there are %s", f.kind, strings.Join(ledger.Kinds(), ", "))
			}
			b, err := a.openLedger(c)
			if err != nil {
				return err
			}
			defer b.stop()
			items, err := a.ledgerEntries(c.Context(), b, &f)
			if err != nil {
				return err
			}
			return printList(a, items, "no such entries", []string{"ENTRY", "KIND", "TIME", "APP", "INSTANCE", "MEMBER", "WHY"}, ledgerRow)
		}}
	s := c.Flags()
	s.StringVar(&f.app, "app-id", "", "only of this app")
	s.StringVar(&f.instance, "instance-id", "", "only of this instance")
	s.StringVar(&f.kind, "kind", "", "only these: "+strings.Join(ledger.Kinds(), ", "))
	s.IntVarP(&f.count, "count", "n", 20, "how many, the newest last")
	_ = c.RegisterFlagCompletionFunc("kind", cobra.FixedCompletions(ledger.Kinds(), cobra.ShellCompDirectiveNoFileComp)) // the flag exists
	return c
}

func ledgerRow(e ledgerEntry) []string {
	why := first(e.Reason, e.Platform)
	if e.Kind == ledger.KindSummary {
		why = fmt.Sprintf("%d refusals of evidence that no vendor signed", e.Count)
	}
	return []string{fmt.Sprint(e.Index), e.Kind, e.Time.UTC().Format(time.DateTime), e.AppID, short(e.InstanceID), e.Member, why}
}

// ledgerEntries goes back from the newest entry until it has enough that match.
func (a *app) ledgerEntries(ctx context.Context, b *book, f *ledgerFilter) (out []ledgerEntry, err error) {
	st := a.steps()
	st.start("reading the newest of %d entries", b.at.Size)
	defer st.drop()
	for end := b.at.Size; end > 0 && len(out) < f.count; end -= min(end, 4*ledgerAtOnce) {
		from := max(end-4*ledgerAtOnce, 0)
		part := make([]ledgerEntry, end-from)
		g, ctx := errgroup.WithContext(ctx)
		g.SetLimit(ledgerAtOnce)
		for i := range part {
			g.Go(func() (err error) {
				part[i], err = b.entry(ctx, from+int64(i))
				return err
			})
		}
		if err := g.Wait(); err != nil {
			return nil, err
		}
		var match []ledgerEntry
		for _, e := range part {
			if f.matches(e.Leaf) {
				match = append(match, e)
			}
		}
		out = append(match, out...)
		st.news("back to entry %d", from)
	}
	return out[max(len(out)-f.count, 0):], nil
}

func (a *app) ledgerShowCmd() *cobra.Command {
	return &cobra.Command{Use: "show <entry>", Short: "One entry, proved to be in the signed ledger", Args: args(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, as []string) error {
			i, err := strconv.ParseInt(as[0], 10, 64)
			if err != nil || i < 0 {
				return usage("%q is not the number of an entry (phala ledger list shows them)", as[0])
			}
			b, err := a.openLedger(c)
			if err != nil {
				return err
			}
			defer b.stop()
			if i >= b.at.Size {
				return cvm.Errorf(cvm.NotFound, "the ledger has no entry %d: it has %d, beginning with 0", i, b.at.Size).WithFix("phala ledger list shows the newest")
			}
			e, err := b.entry(c.Context(), i)
			if err != nil {
				return err
			}
			if a.json {
				return a.printJSON(e)
			}
			a.printLeaf(e, b)
			return nil
		}}
}

func (a *app) printLeaf(e ledgerEntry, b *book) {
	a.printFields([]field{{"Entry", fmt.Sprintf("%d of %d, proved", e.Index, b.at.Size)}, {"Kind", e.Kind}, {"Time", e.Time.UTC().Format(time.DateTime) + " UTC"}, {"Member", e.Member},
		{"App", e.AppID}, {"Instance", e.InstanceID}, {"Compose hash", e.ComposeHash}, {"Image", e.ImageHash}, {"Device", e.DeviceID},
		{"Platform", e.Platform}, {"TCB status", e.TCBStatus}, {"Evidence", e.EvidenceHash}, {"Env", e.EnvSHA256}, {"Why", e.Reason}, {"Detail", verify.Printable(e.Detail)},
		{"Governance", verify.Printable(string(e.Governance))}, {"Note", verify.Printable(string(e.Note))}})
}

func (a *app) ledgerAuditCmd() *cobra.Command {
	return &cobra.Command{Use: "audit", Short: "Read the whole ledger and compute its root here",
		Long: "Read every entry, build the tree again, and compare its root with the one that a\nmajority of the members signed. Afterwards nothing rests on the KMS's proofs.",
		Args: args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			b, err := a.openLedger(c)
			if err != nil {
				return err
			}
			defer b.stop()
			kinds, err := a.auditLedger(c.Context(), b)
			if err != nil {
				return err
			}
			if a.json {
				return a.printJSON(struct {
					ledgerStatus
					Kinds map[string]int `json:"kinds"`
				}{b.status(), kinds})
			}
			a.say("%s", a.good(fmt.Sprintf("%d entries give the signed root %x", b.at.Size, b.at.Root)))
			for _, k := range ledger.Kinds() {
				if kinds[k] > 0 {
					a.printf("%-11s %d\n", k, kinds[k])
				}
			}
			return nil
		}}
}

// auditLedger builds the tree from its leaves.
func (a *app) auditLedger(ctx context.Context, b *book) (map[string]int, error) {
	st := a.steps()
	st.start("reading %d entries", b.at.Size)
	defer st.drop()
	leaves := make([][]byte, b.at.Size)
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(ledgerAtOnce)
	for i := range leaves {
		g.Go(func() (err error) {
			leaves[i], err = b.kms.Leaf(gctx, int64(i))
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	var t ledger.Tree
	kinds := map[string]int{}
	for i, raw := range leaves {
		l, err := ledger.ParseLeaf(raw)
		if err != nil {
			return nil, fmt.Errorf("entry %d: %w", i, err)
		}
		kinds[l.Kind]++
		if _, err := t.Append(raw); err != nil {
			return nil, err
		}
	}
	root, err := t.Root(b.at.Size)
	if err == nil && root != b.at.Root {
		err = cvm.Errorf(cvm.Denied, "the entries that the KMS gives out have root %x, the signed one is %x: entries were changed", root, b.at.Root).
			WithReason("ledger-not-included").WithFix("believe none of them; keep the signed checkpoint: " + b.file)
	}
	return kinds, err
}
