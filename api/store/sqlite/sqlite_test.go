package sqlite

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/confidential-cloud/phala/api/store"
	"github.com/confidential-cloud/phala/api/store/storetest"
)

func TestStore(t *testing.T) {
	storetest.Run(t, func(t *testing.T, now func() time.Time) store.Store {
		s, err := Open(t.Context(), filepath.Join(t.TempDir(), "x.db"), now)
		if err != nil {
			t.Fatal(err)
		}
		return s
	})
}
