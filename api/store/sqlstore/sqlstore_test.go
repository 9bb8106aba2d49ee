package sqlstore

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/confidential-cloud/phala/api/store"
	"github.com/confidential-cloud/phala/api/store/storetest"
	"github.com/confidential-cloud/phala/internal/sqldb"
)

func TestStore(t *testing.T) {
	storetest.Run(t, func(t *testing.T, now func() time.Time) store.Store {
		s, err := Open(t.Context(), sqldb.Source{Path: filepath.Join(t.TempDir(), "x.db")}, now)
		if err != nil {
			t.Fatal(err)
		}
		return s
	})
}

func TestStorePostgres(t *testing.T) {
	pg := storetest.StartPostgres(t)
	storetest.Run(t, func(t *testing.T, now func() time.Time) store.Store {
		s, err := Open(t.Context(), sqldb.Source{URL: pg.NewDatabase(t)}, now)
		if err != nil {
			t.Fatal(err)
		}
		return s
	})
}
