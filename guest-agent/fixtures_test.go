package guestagent

import (
	"log/slog"
	"os"
	"path/filepath"
	"testing"
)

// TestFixtures: an empty directory gets files that the simulator serves, once.
func TestFixtures(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "sim")
	if err := makeFixtures(t.Context(), dir); err != nil {
		t.Fatal(err)
	}
	b, err := fixtures(dir, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if b.ComposeHash != b.App.Hash() || b.AppID.IsZero() {
		t.Errorf("evidence of app %s, hash %s; the app-compose is %s", b.AppID, b.ComposeHash, b.App.Hash())
	}
	before, err := os.ReadFile(filepath.Join(dir, "appkeys.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := makeFixtures(t.Context(), dir); err != nil {
		t.Fatal(err)
	}
	if after, err := os.ReadFile(filepath.Join(dir, "appkeys.json")); err != nil || string(after) != string(before) {
		t.Error("files that are there were replaced")
	}
}
