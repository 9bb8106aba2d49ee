package verify

import (
	"fmt"
	"io"
	"strings"
	"unicode"

	"github.com/confidential-cloud/phala/attest/claim"
)

// Style colours parts of the text report. Nil functions leave text plain.
type Style struct {
	Pass, Fail, Skip, Bold, Dim, Banner func(string) string
	// All shows every check; otherwise passed ones are counted per link.
	All bool
}

func paint(f func(string) string, s string) string {
	if f == nil {
		return s
	}
	return f(s)
}

// WriteText writes the report for a terminal.
func (r *Report) WriteText(w io.Writer, st Style) error {
	var b strings.Builder
	for _, x := range r.Banners {
		fmt.Fprintf(&b, "%s\n", paint(st.Banner, "!! "+x))
	}
	fmt.Fprintf(&b, "%s %s\n\n", paint(st.Bold, "Verification of"), Printable(r.Target))
	for _, s := range r.Sections {
		s.text(&b, st)
	}
	passed, failed, skipped, notes := r.Counts()
	line := fmt.Sprintf("VERIFIED: %d checks passed", passed)
	colour := st.Pass
	if !r.Verified {
		line = fmt.Sprintf("NOT VERIFIED: %d passed, %d failed, %d could not be made", passed, failed, skipped)
		colour = st.Fail
	}
	if notes > 0 {
		line += fmt.Sprintf(" (%d more are for information)", notes)
	}
	fmt.Fprintf(&b, "\n%s\n%s\n", paint(colour, line), paint(st.Dim, "profile "+r.Profile+", "+r.At.Format("2006-01-02 15:04:05 MST")))
	_, err := io.WriteString(w, b.String())
	return err
}

func (s Section) text(b *strings.Builder, st Style) {
	head, passed := paint(st.Pass, "✓"), 0
	if !s.OK() {
		head = paint(st.Fail, "✗")
	}
	for _, c := range s.Checks {
		if c.Verdict == claim.Passed {
			passed++
		}
	}
	fmt.Fprintf(b, "%s %s %s\n", head, paint(st.Bold, s.Title), paint(st.Dim, fmt.Sprintf("%d/%d", passed, len(s.Checks))))
	for _, c := range s.Checks {
		if c.Verdict == claim.Passed {
			if st.All {
				fmt.Fprintf(b, "    %s %s%s\n", paint(st.Pass, "✓"), c.Title, paint(st.Dim, suffix(c.Got)))
			}
			continue
		}
		mark, colour := "✗", st.Fail
		switch {
		case !c.Required:
			mark, colour = "·", st.Skip
		case c.Verdict == claim.Skipped:
			mark, colour = "–", st.Skip
		}
		fmt.Fprintf(b, "    %s %s%s\n", paint(colour, mark), c.Title, paint(colour, suffix(c.Reason)))
		if c.Want != "" || c.Got != "" {
			fmt.Fprintf(b, "        expected %s, found %s\n", orNothing(c.Want), orNothing(c.Got))
		}
		if c.Fix != "" && c.Required && c.Verdict == claim.Failed {
			fmt.Fprintf(b, "        %s\n", paint(st.Dim, "→ "+Printable(c.Fix)))
		}
	}
}

func suffix(s string) string {
	if s == "" {
		return ""
	}
	return ": " + Printable(s)
}

// Printable keeps what others wrote from steering the terminal.
func Printable(s string) string {
	return strings.Map(func(c rune) rune {
		if !unicode.IsPrint(c) {
			return '?'
		}
		return c
	}, s)
}

func orNothing(s string) string {
	if s == "" {
		return "nothing"
	}
	return Printable(s)
}
