package sqlstore

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/confidential-cloud/phala/internal/sqldb"
)

// A search reads all CVMs only where its text is too short, or in the names of too many.
func TestSearchReadsFew(t *testing.T) {
	d, err := Open(t.Context(), sqldb.Source{Path: filepath.Join(t.TempDir(), "x.db")}, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	const workspace = 7
	name := func(gram string, cvms int) {
		var values []string
		var args []any
		for i := range cvms {
			values, args = append(values, `(?, ?, ?)`), append(args, workspace, gram, i+1)
		}
		if _, err := d.db.ExecContext(t.Context(), `INSERT INTO name_grams (workspace_id, gram, cvm_id) VALUES `+strings.Join(values, `, `), args...); err != nil {
			t.Fatal(err)
		}
	}
	name("few", searchBound)
	name("all", searchBound+1)
	for text, reads := range map[string]bool{"few": false, "FEW": false, "allfew": false, "none": false, "all": true, "al": true, strings.Repeat("x", longest+1): false} {
		cond, _, err := d.found(t.Context(), workspace, text)
		if err != nil {
			t.Fatal(err)
		}
		if all, _ := searchFor(text).scan(); (cond == all) != reads {
			t.Errorf("%q: %s", text, cond)
		}
	}
}
