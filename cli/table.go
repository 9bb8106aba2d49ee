package cli

import (
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

const (
	tableGap  = 2
	tableCell = 9 // no column is cut below this
)

// columns is the width of the terminal that w is, 0 for a file or a pipe.
func (a *app) columns(w io.Writer) int {
	if a.screen > 0 {
		return a.screen
	}
	if a.Columns == nil {
		return 0
	}
	return a.Columns(w)
}

// table prints rows as wide as the terminal is: what does not fit is cut, and where
// even that is not enough each row becomes a block. A file or a pipe gets all of it.
func (a *app) table(head []string, rows [][]string) {
	width := a.columns(a.Stdout)
	cols, cut, ok := fit(append([][]string{head}, rows...), width)
	if !ok {
		a.blocks(head, rows)
		return
	}
	for _, r := range append([][]string{head}, rows...) {
		a.printf("%s\n", tableLine(r, cols))
	}
	if cut {
		a.say("%s", a.paint("2", fmt.Sprintf("(cut to %d columns; a wider terminal or --json shows all)", width)))
	}
}

// fit gives each column its width: the widest give way first, the first one, which is
// what people type, never. width 0 is no bound.
func fit(rows [][]string, width int) (cols []int, cut, ok bool) {
	total := -tableGap
	for _, r := range rows {
		for i, c := range r {
			if i == len(cols) {
				cols = append(cols, 0)
			}
			cols[i] = max(cols[i], utf8.RuneCountInString(c))
		}
	}
	for _, w := range cols {
		total += w + tableGap
	}
	for ; width > 0 && total > width; total-- {
		widest := 0
		for i, w := range cols {
			if i > 0 && w > tableCell && (widest == 0 || w > cols[widest]) {
				widest = i
			}
		}
		if widest == 0 {
			return cols, cut, false
		}
		cols[widest]--
		cut = true
	}
	return cols, cut, true
}

func tableLine(row []string, cols []int) string {
	var b strings.Builder
	for i, c := range row {
		n := utf8.RuneCountInString(c)
		if n > cols[i] {
			c, n = string([]rune(c)[:cols[i]-1])+"…", cols[i]
		}
		b.WriteString(c + strings.Repeat(" ", cols[i]-n+tableGap))
	}
	return strings.TrimRight(b.String(), " ")
}

// blocks prints each row with its names, one below the other.
func (a *app) blocks(head []string, rows [][]string) {
	for i, r := range rows {
		if i > 0 {
			a.printf("\n")
		}
		fields := make([]field, 0, len(r))
		for k, v := range r {
			fields = append(fields, field{head[k], v})
		}
		a.printFields(fields)
	}
}
