package compat

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

func TestCLI(t *testing.T) {
	modules := install(t)
	s := newStack(t, nil)
	for name, steps := range map[string][]step{"cvms": lifecycle, "account": around, "flags": flagged, "signing": signing} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			u := newUser(t, s, modules, name)
			for _, st := range steps {
				if st.everyday || long() {
					t.Run(st.cmd, func(t *testing.T) { st.check(t, u) })
				}
			}
		})
	}
}

// anyExit is the code of a signal, which the system decides.
const anyExit = -1

// step is one command with what it must do.
type step struct {
	cmd      string // the leaf command
	args     string
	exit     int
	want     []string // all must be in the output
	lacks    []string // none may be
	calls    string   // the requests, with ", " between; a trailing "..." allows more; "" is none
	save     string   // name=json_field of the answer, or name= for all of it
	rest     string   // wait until this CVM rests
	noKey    bool     // the key is not in the environment
	in       string   // what is typed
	everyday bool

	see  string // when this regular expression matches what it says,
	then event  // this happens, once
}

// event is what happens while a command runs; seen is what the expression matched.
type event func(t *testing.T, u *user, seen []string, p *os.Process)

// interrupt is Ctrl-C.
func interrupt(t *testing.T, _ *user, _ []string, p *os.Process) {
	if err := p.Signal(os.Interrupt); err != nil {
		t.Error(err)
	}
}

// approve is somebody who is signed in and types the code of a device.
func approve(t *testing.T, u *user, seen []string, _ *os.Process) {
	if status, b := u.s.curl(t, "POST", "/auth/device/authorize", u.s.Key, map[string]any{"user_code": seen[0]}); status/100 != 2 {
		t.Errorf("approve %s: %d %s", seen[0], status, b)
	}
}

// meanwhile calls the event once.
func (st step) meanwhile(t *testing.T, u *user) func(string, *os.Process) {
	if st.then == nil {
		return nil
	}
	see, done := regexp.MustCompile(st.see), false
	t.Cleanup(func() {
		if !done {
			t.Errorf("phala %s %s: never said %s", st.cmd, st.args, st.see)
		}
	})
	return func(said string, p *os.Process) {
		if seen := see.FindStringSubmatch(said); seen != nil && !done {
			done = true
			st.then(t, u, seen, p)
		}
	}
}

func (st step) check(t *testing.T, u *user) {
	t.Helper()
	name := strings.TrimSpace(st.cmd + " " + st.args)
	r, err := u.do(t.Context(), st.cmd, strings.Fields(u.fill(st.args)), u.fill(st.in), !st.noKey, st.meanwhile(t, u))
	if err != nil {
		t.Fatalf("phala %s: %v", name, err)
	}
	if r.code != st.exit && st.exit != anyExit {
		t.Errorf("phala %s: exit %d, want %d\n%.1500s", name, r.code, st.exit, r.out)
	}
	for _, w := range st.want {
		if w = u.fill(w); !strings.Contains(r.out, w) {
			t.Errorf("phala %s: no %q in\n%.1500s", name, w, r.out)
		}
	}
	for _, w := range st.lacks {
		if strings.Contains(r.out, w) {
			t.Errorf("phala %s: %q in\n%.1500s", name, w, r.out)
		}
	}
	if st.save != "" {
		u.save(t, name, st.save, r.std)
	}
	got, prefix := u.hide(strings.Join(r.calls, ", ")), strings.TrimSuffix(st.calls, "...")
	if got != st.calls && (prefix == st.calls || !strings.HasPrefix(got, prefix)) {
		t.Errorf("phala %s asked\n %s\nwant\n %s", name, got, st.calls)
	}
	if st.rest != "" {
		u.s.rest(t, u.fill(st.rest))
	}
}

// save reads the last JSON object of a command's stdout.
func (u *user) save(t *testing.T, cmd, what, out string) {
	t.Helper()
	if name, whole := strings.CutSuffix(what, "="); whole {
		u.vars[name] = strings.TrimSpace(out)
		return
	}
	var m map[string]any
	i := strings.LastIndex("\n"+out, "\n{") // receipts that the SDK prints may come before
	if i < 0 || json.Unmarshal([]byte(out[i:]), &m) != nil {
		t.Fatalf("phala %s: no JSON in %.300s", cmd, out)
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	for pair := range strings.SplitSeq(what, " ") {
		name, field, _ := strings.Cut(pair, "=")
		v, _ := m[field].(string)
		if v == "" {
			t.Fatalf("phala %s: no %s in %.300s", cmd, field, out)
		}
		u.vars[name] = v
	}
}

// steps are all that are run.
func steps() []step { return slices.Concat(lifecycle, around, flagged, signing, contracted) }

// TestTable holds the table, the steps, docs/compat.md and the client's own help
// together.
func TestTable(t *testing.T) {
	var run []string
	for _, st := range steps() {
		if st.cmd != sign {
			run = append(run, st.cmd)
		}
	}
	for _, c := range commands {
		if (c.reason == "") != (c.verdict == works) {
			t.Errorf("%s: a verdict other than %q needs a reason, and only that", c.name, works)
		}
		if !slices.Contains(run, c.name) {
			t.Errorf("%s is in the table, but no step runs it", c.name)
		}
	}
	for _, st := range run {
		if !slices.ContainsFunc(commands, func(c command) bool { return c.name == st }) {
			t.Errorf("a step runs %q, which is not in the table", st)
		}
	}
	doc, err := os.ReadFile("../../docs/compat.md")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(doc), markdown()) {
		if os.Getenv("PHALA_WRITE_DOCS") == "" {
			t.Fatalf("docs/compat.md has not this table (PHALA_WRITE_DOCS=1 writes it):\n%s", markdown())
		}
		const begin, end = "<!-- commands -->\n", "<!-- end of commands -->\n"
		i, j := strings.Index(string(doc), begin), strings.Index(string(doc), end)
		if i < 0 || j < i {
			t.Fatal("docs/compat.md has no marks for the table")
		}
		if err := os.WriteFile("../../docs/compat.md", []byte(string(doc[:i])+begin+markdown()+string(doc[j:])), 0o644); err != nil { //nolint:gosec // a document
			t.Fatal(err)
		}
	}
}

func markdown() string {
	var b strings.Builder
	b.WriteString("| command | verdict | reason |\n|---|---|---|\n")
	for _, c := range commands {
		b.WriteString("| `phala " + c.name + "` | " + c.verdict + " | " + c.reason + " |\n")
	}
	b.WriteString("\n| flag that no row runs | reason |\n|---|---|\n")
	for _, u := range unrun {
		b.WriteString("| `" + strings.TrimSpace(u.command+" "+u.flag) + "` | " + u.reason + " |\n")
	}
	return b.String()
}

// helpTexts are the recorded help texts of the public CLI, by command, where they are.
func helpTexts(t *testing.T) map[string]string {
	t.Helper()
	d, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	var help []byte
	for ; d != "/" && help == nil; d = filepath.Dir(d) {
		help, _ = os.ReadFile(filepath.Join(d, "shared", "reference", "phala-cli-help.txt"))
	}
	if help == nil {
		t.Skip("SKIPPED: the recorded help (../shared/reference) is not here")
	}
	texts := map[string]string{}
	for _, part := range regexp.MustCompile(`(?m)^\$ phala `).Split(string(help), -1)[1:] {
		command, text, ok := strings.Cut(part, " --help\n")
		if !ok {
			t.Fatalf("the recorded help has %.60q", part)
		}
		texts[command] = text
	}
	return texts
}

// TestTableIsComplete: every command of the recorded help is in the table.
func TestTableIsComplete(t *testing.T) {
	leaves := helpTexts(t)
	for l := range leaves {
		if !slices.ContainsFunc(commands, func(c command) bool { return c.name == l }) {
			t.Errorf("the public CLI has %q, the table has not", l)
		}
	}
	if len(leaves) < 70 {
		t.Errorf("%d commands in the recorded help", len(leaves))
	}
}
