package sqlstore

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/confidential-cloud/phala/api/store"
	"github.com/confidential-cloud/phala/internal/sqldb"
)

// gram is how many letters of a name stand together in name_grams.
const gram = 3

// searchBound is how many CVMs a search may have to look at by themselves. Where a text
// is in more names than that, as far as can be seen, all are read through.
const searchBound = 1000

// longest is how long a name can be, and no id is longer.
const longest = 63

// gramsOf are the grams of a text in small letters, each once.
func gramsOf(text string) (out []string) {
	for i := 0; i+gram <= len(text); i++ {
		if g := text[i : i+gram]; !slices.Contains(out, g) {
			out = append(out, g)
		}
	}
	return out
}

// named are the grams by which a CVM is found: live ones only.
func named(c store.CVM) []string {
	if !c.Live() {
		return nil
	}
	return gramsOf(strings.ToLower(c.Name))
}

// spell keeps the grams of a CVM's name in step with it. (A CVM that is made had no
// name.)
func spell(ctx context.Context, tx *sqldb.Tx, was, is store.CVM) error {
	before, after := named(was), named(is)
	if slices.Equal(before, after) {
		return nil
	}
	if len(before) > 0 {
		if _, err := tx.ExecContext(ctx, `DELETE FROM name_grams WHERE workspace_id = ? AND cvm_id = ? AND gram IN (`+marks(len(before))+`)`,
			append([]any{is.WorkspaceID, is.ID}, anys(before)...)...); err != nil {
			return fmt.Errorf("storing a name: %w", err)
		}
	}
	if len(after) == 0 {
		return nil
	}
	args := make([]any, 0, gram*len(after))
	for _, g := range after {
		args = append(args, is.WorkspaceID, g, is.ID)
	}
	if _, err := tx.ExecContext(ctx, `INSERT INTO name_grams (workspace_id, gram, cvm_id) VALUES `+strings.TrimSuffix(strings.Repeat(`(?, ?, ?), `, len(after)), `, `)+
		` ON CONFLICT DO NOTHING`, args...); err != nil {
		return fmt.Errorf("storing a name: %w", err)
	}
	return nil
}

// rarest is the gram of a text that is in the fewest names of a workspace, and whether
// these are few enough to be looked at by themselves.
func (d *DB) rarest(ctx context.Context, workspace int64, grams []string) (string, bool, error) {
	if len(grams) == 0 {
		return "", false, nil // it is too short
	}
	var query []string
	var args []any
	for i, g := range grams {
		query = append(query, fmt.Sprintf(`SELECT %d, COUNT(*) FROM (SELECT 1 AS one FROM name_grams WHERE workspace_id = ? AND gram = ? LIMIT %d) AS few`, i, searchBound+1))
		args = append(args, workspace, g)
	}
	type count struct{ i, n int }
	all, err := rows(ctx, d.db, func(s scanner) (c count, err error) { return c, s.Scan(&c.i, &c.n) }, strings.Join(query, ` UNION ALL `), args...)
	if err != nil {
		return "", false, err
	}
	least := slices.MinFunc(all, func(a, b count) int { return a.n - b.n })
	return grams[least.i], least.n <= searchBound, nil
}

// search is a text that is looked for: within a name, or the beginning of an id.
type search struct {
	text, like, begin, after string
	hex                      bool // else only a name can hold it
}

func searchFor(text string) search {
	s := search{text: strings.ToLower(text)}
	escaped := strings.NewReplacer(`\`, `\\`, `%`, `\%`, `_`, `\_`).Replace(s.text)
	s.like, s.begin, s.after = `%`+escaped+`%`, s.text, s.text+"g" // behind all that are hex
	s.hex = strings.Trim(s.text, "0123456789abcdef-") == ""
	return s
}

// idColumns may begin with what is searched for.
func idColumns() []string { return []string{`app_id`, `uuid`, `instance_id`} }

// scan is the condition that reads all CVMs of a workspace.
func (s search) scan() (string, []any) {
	cond, args := `lower(c.name) LIKE ? ESCAPE '\'`, []any{s.like}
	if !s.hex {
		return cond, args
	}
	for _, column := range idColumns() {
		cond, args = cond+` OR c.`+column+` >= ? AND c.`+column+` < ?`, append(args, s.begin, s.after)
	}
	return `(` + cond + `)`, args
}

// nothing is the condition that no CVM meets.
const nothing = `c.id IN (0)`

// found is the condition for what a search finds: by the ids of CVMs where they are
// few, else one that reads all.
func (d *DB) found(ctx context.Context, workspace int64, text string) (string, []any, error) {
	s := searchFor(text)
	if len(s.text) > longest || strings.ContainsFunc(s.text, func(r rune) bool { return r < ' ' || r > '~' }) {
		return nothing, nil, nil // no name and no id is like that
	}
	g, few, err := d.rarest(ctx, workspace, gramsOf(s.text))
	if err != nil {
		return "", nil, err
	}
	cond, args := s.scan()
	if !few {
		return cond, args, nil
	}
	query := `SELECT id FROM (SELECT c.id FROM name_grams g JOIN cvms c ON c.id = g.cvm_id WHERE g.workspace_id = ? AND g.gram = ? AND lower(c.name) LIKE ? ESCAPE '\') AS names`
	by := []any{workspace, g, s.like}
	if s.hex {
		for _, column := range idColumns() {
			query += fmt.Sprintf(` UNION SELECT id FROM (SELECT id FROM cvms WHERE deleted_at = 0 AND workspace_id = ? AND %s >= ? AND %s < ? LIMIT %d) AS by_%s`, column, column, searchBound+1, column)
			by = append(by, workspace, s.begin, s.after)
		}
	}
	ids, err := rows(ctx, d.db, scanID, query, by...)
	if err != nil || len(ids) > searchBound {
		return cond, args, err
	}
	if len(ids) == 0 {
		return nothing, nil, nil
	}
	// As many parameters as a power of two: so many different statements are enough.
	for n := len(ids); n&(n-1) != 0; n++ {
		ids = append(ids, ids[0])
	}
	return `c.id IN (` + marks(len(ids)) + `)`, anys(ids), nil
}
