package logs

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// hand is the writer that QEMU is: it has the file open for appending.
type hand struct {
	t *testing.T
	f *os.File
	l *Log
	c time.Time
}

func newHand(t *testing.T, cfg Config) *hand {
	t.Helper()
	h := &hand{t: t, c: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)}
	path := filepath.Join(t.TempDir(), "serial[1].log") // a name that glob would misread
	var err error
	if h.f, err = os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.f.Close() })
	cfg.Now = func() time.Time { return h.c }
	if h.l, err = Open(path, cfg); err != nil {
		t.Fatal(err)
	}
	return h
}

func (h *hand) say(s string) {
	h.t.Helper()
	if _, err := h.f.WriteString(s); err != nil {
		h.t.Fatal(err)
	}
	if err := h.l.Look(); err != nil {
		h.t.Fatal(err)
	}
	h.c = h.c.Add(time.Second)
}

func (h *hand) all(o Options) string {
	h.t.Helper()
	rc, err := h.l.Read(h.t.Context(), o)
	if err != nil {
		h.t.Fatal(err)
	}
	defer rc.Close()
	b, err := io.ReadAll(rc)
	if err != nil {
		h.t.Fatal(err)
	}
	return string(b)
}

func TestRotationKeepsTheNewest(t *testing.T) {
	h := newHand(t, Config{MaxBytes: 100, Keep: 2})
	var want []string
	for i := range 60 {
		line := fmt.Sprintf("line %02d\n", i)
		want = append(want, line)
		h.say(line)
	}
	got := h.all(Options{})
	if !strings.HasSuffix(strings.Join(want, ""), got) || len(got) < 200 {
		t.Fatalf("kept %d bytes: %q", len(got), got)
	}
	entries, _ := os.ReadDir(filepath.Dir(h.l.path))
	total := int64(0)
	for _, e := range entries {
		info, _ := e.Info()
		if !strings.HasSuffix(e.Name(), ".index") {
			total += info.Size()
		}
	}
	if len(entries) != 4 || total > 3*110 { // file, index, two pieces
		t.Fatalf("%v hold %d bytes", entries, total)
	}
	for n := range 40 {
		if got := h.all(Options{Tail: n + 1}); got != strings.Join(want[max(0, 60-n-1, 60-len(strings.Split(h.all(Options{}), "\n"))+1):], "") {
			t.Fatalf("tail %d: %q", n+1, got)
		}
	}
	// Another process finds the same.
	again, err := Open(h.l.path, Config{MaxBytes: 100, Keep: 2})
	if err != nil {
		t.Fatal(err)
	}
	h.l = again
	if h.all(Options{}) != got {
		t.Fatal("opened again, it differs")
	}
	if err := h.l.Remove(); err != nil {
		t.Fatal(err)
	}
	if entries, _ := os.ReadDir(filepath.Dir(h.l.path)); len(entries) != 0 {
		t.Fatalf("left behind: %v", entries)
	}
}

func TestACutThatACrashInterrupted(t *testing.T) {
	h := newHand(t, Config{MaxBytes: 50, Keep: 3})
	h.say(strings.Repeat("old line\n", 6)) // cut
	h.say("new\n")
	want := h.all(Options{})
	// Copied, not truncated: killed in between.
	b, _ := os.ReadFile(h.l.path)
	if err := os.WriteFile(h.l.pieceFile(h.l.base), b, 0o600); err != nil {
		t.Fatal(err)
	}
	var err error
	if h.l, err = Open(h.l.path, Config{MaxBytes: 50}); err != nil {
		t.Fatal(err)
	}
	if got := h.all(Options{}); got != want {
		t.Fatalf("got %q, want %q", got, want)
	}
}

func TestTimes(t *testing.T) {
	h := newHand(t, Config{MaxBytes: 40})
	start := h.c
	for i := range 10 { // one line a second
		h.say(fmt.Sprintf("line %02d\n", i))
	}
	at := func(s int) time.Time { return start.Add(time.Duration(s) * time.Second) }
	for name, c := range map[string]struct {
		o           Options
		first, last int
	}{
		"since":          {Options{Since: at(7)}, 7, 9},
		"until":          {Options{Until: at(3)}, 0, 3},
		"both":           {Options{Since: at(3), Until: at(5)}, 3, 5},
		"tail and until": {Options{Tail: 2, Until: at(5)}, 4, 5},
		"tail and since": {Options{Tail: 9, Since: at(8)}, 8, 9},
	} {
		var want string
		for i := c.first; i <= c.last; i++ {
			want += fmt.Sprintf("line %02d\n", i)
		}
		if got := h.all(c.o); got != want {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
	if got := h.all(Options{Since: at(20)}); got != "" {
		t.Errorf("since the future: %q", got)
	}
	if got := h.all(Options{Tail: 1, Timestamps: true}); got != "2026-01-01T00:00:09Z line 09\n" {
		t.Errorf("timestamps: %q", got)
	}
	for name, o := range map[string]Options{"tail": {Tail: -1}, "line": {MaxLine: -1}, "order": {Since: at(2), Until: at(1)}} {
		if _, err := h.l.Read(t.Context(), o); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// TestFollowAcrossRotations: a follower sees every byte once, however often the
// file is cut while it reads.
func TestFollowAcrossRotations(t *testing.T) {
	h := newHand(t, Config{MaxBytes: 64, Keep: 3})
	h.say("first\n")
	rc, err := h.l.Read(t.Context(), Options{Follow: true})
	if err != nil {
		t.Fatal(err)
	}
	defer rc.Close()
	sc := bufio.NewScanner(rc)
	if !sc.Scan() || sc.Text() != "first" {
		t.Fatalf("%q", sc.Text())
	}
	for i := range 200 {
		h.say(fmt.Sprintf("line %03d\n", i))
		if !sc.Scan() || sc.Text() != fmt.Sprintf("line %03d", i) {
			t.Fatalf("after line %d: %q %v", i, sc.Text(), sc.Err())
		}
	}
	h.l.End()
	if sc.Scan() || sc.Err() != nil {
		t.Fatalf("after the end: %q %v", sc.Text(), sc.Err())
	}
}

func TestASlowFollowerIsToldWhatItMissed(t *testing.T) {
	h := newHand(t, Config{MaxBytes: 64, Keep: 1})
	h.say("first\n")
	r := reader{l: h.l, o: Options{MaxLine: MaxLine}}
	for range 40 {
		h.say("0123456789\n")
	}
	var out bytes.Buffer
	if err := r.run(t.Context(), &out); err != nil || !strings.Contains(out.String(), "bytes are not kept any more]\n0123456789\n") {
		t.Fatalf("%q %v", out.String(), err)
	}
}

func TestFollowEndsWithItsContextAndClose(t *testing.T) {
	h := newHand(t, Config{})
	ctx, cancel := context.WithCancel(t.Context())
	rc, err := h.l.Read(ctx, Options{Follow: true, Heartbeat: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	if b := make([]byte, 1); second(rc.Read(b)) != nil || b[0] != '\n' {
		t.Fatalf("heartbeat: %q", b)
	}
	cancel()
	if _, err := io.ReadAll(rc); err == nil {
		t.Fatal("the stream did not say that it was cut off")
	}
	if rc, err = h.l.Read(t.Context(), Options{Follow: true}); err != nil {
		t.Fatal(err)
	}
	if err := rc.Close(); err != nil {
		t.Fatal(err)
	}
}

func second(_ int, err error) error { return err }

func TestLongLines(t *testing.T) {
	h := newHand(t, Config{})
	h.say(strings.Repeat("x", 100_000) + "\nnext\nunfinished")
	if got := h.all(Options{MaxLine: 10}); got != "xxxxxxxxxx [line cut]\nnext\nunfinished" {
		t.Fatalf("%q", got)
	}
	if got := h.all(Options{Tail: 2}); got != "next\nunfinished" {
		t.Fatalf("%q", got)
	}
}

func TestANSI(t *testing.T) {
	for in, want := range map[string]string{
		"\x1b[31mred\x1b[0m\n":              "red\n",
		"\x1b]0;title\x07text\n":            "text\n",
		"\x1b]8;;http://x\x1b\\link\n":      "link\n",
		"\x1bP1;2|data\x1b\\rest\n":         "rest\n",
		"a\r\nb\n":                          "a\nb\n",
		"10%\r20%\r\n":                      "10%\n20%\n",
		"\x1b(Btext\x1b=\n":                 "text\n",
		"\x1b[2J\x1b[1;1Hhidden\bx\a\x00\n": "hiddenx\n",
		"broken \x1b]0;no end\nnext\n":      "broken \nnext\n",
		"\x1b[\x1b[31mtwice\n":              "twice\n",
		"plain é ünïcode\t\n":               "plain é ünïcode\t\n",
	} {
		h := newHand(t, Config{})
		h.say(in)
		if got := h.all(Options{}); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
		if got := h.all(Options{KeepANSI: true}); got != in {
			t.Errorf("kept: got %q, want %q", got, in)
		}
	}
}

// Terminals obey control characters in their 8-bit form as well.
func TestStripEightBitControls(t *testing.T) {
	for in, want := range map[string]string{
		"a\u009b2Jb\n":          "ab\n",
		"a\x9b2Jb\n":            "ab\n",
		"a\u009d0;title\x07b\n": "ab\n",
		"a\u0085b\n":            "ab\n",
		"\xc2\xc2\x9b1mx\n":     "x\n",
		"\xe2\x1b[0m\x9b31mx\n": "\xe2x\n",
		"£ © é ß „ € 漢字 😀 \u00a0 Ä\n":         "£ © é ß „ € 漢字 😀 \u00a0 Ä\n",
		"\u009b is one\nline at most\u009c\n": "s one\nline at most\n",
	} {
		var s Stripper
		if got := s.Strip(nil, []byte(in)); string(got) != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}

// FuzzStrip: nothing that moves a terminal comes through, in whatever pieces it
// arrives, and what is plain stays.
func FuzzStrip(f *testing.F) {
	f.Add([]byte("\x1b[31mred\x1b[0m \x1b]0;t\x07x\x1bP\x1b\\y\r\nz\r"), 3)
	f.Add([]byte("a\x1b"), 1)
	f.Add([]byte("é€\xc2\x9b2J\x9d0;t\x07\xe2\x9b"), 4)
	f.Fuzz(func(t *testing.T, in []byte, at int) {
		var whole Stripper
		out := whole.Strip(nil, in)
		for _, c := range out {
			if c < 0x20 && c != '\n' && c != '\t' || c == 0x7f {
				t.Fatalf("%q: control character %#x came through: %q", in, c, out)
			}
		}
		for _, r := range string(out) {
			if r >= 0x80 && r < 0xa0 {
				t.Fatalf("%q: control character %#x came through: %q", in, r, out)
			}
		}
		if at >= 0 && at <= len(in) {
			var parts Stripper
			if got := parts.Strip(parts.Strip(nil, in[:at]), in[at:]); !bytes.Equal(got, out) {
				t.Fatalf("%q in two pieces: %q, whole: %q", in, got, out)
			}
		}
		var again Stripper
		if got := again.Strip(nil, out); !bytes.Equal(got, out) {
			t.Fatalf("%q: stripped twice %q, once %q", in, got, out)
		}
		if bytes.Count(out, []byte{'\n'}) < bytes.Count(in, []byte{'\n'}) {
			t.Fatalf("%q: lines are gone: %q", in, out)
		}
	})
}

// FuzzIndex: a broken index never gives times that go back.
func FuzzIndex(f *testing.F) {
	f.Add(append(encodeMark(mark{1, time.Unix(1, 0)}), encodeMark(mark{2, time.Unix(2, 0)})...))
	f.Add(append(encodeMark(mark{5, time.Unix(1, 0)}), encodeMark(mark{2, time.Unix(0, 0)})...))
	f.Fuzz(func(t *testing.T, b []byte) {
		marks := decodeIndex(b)
		var back []byte
		for i, m := range marks {
			back = append(back, encodeMark(m)...)
			if m.Offset < 0 || i > 0 && (m.Offset <= marks[i-1].Offset || m.At.Before(marks[i-1].At)) {
				t.Fatalf("%v", marks)
			}
		}
		if again := decodeIndex(back); len(again) != len(marks) {
			t.Fatalf("%v read back as %v", marks, again)
		}
	})
}
