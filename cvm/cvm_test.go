package cvm

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"testing"
)

func TestIDsRoundTripAndRefuse(t *testing.T) {
	const hex40 = "5bb4ff9a3837357f19dc176407a5709c62eb6c56"
	id, err := ParseAppID("0x" + hex40)
	if err != nil || id.String() != hex40 {
		t.Fatalf("got %s, %v", id, err)
	}
	b, _ := json.Marshal(struct {
		A AppID
		I InstanceID
	}{A: id})
	if want := `{"A":"` + hex40 + `","I":""}`; string(b) != want {
		t.Errorf("got %s want %s", b, want)
	}
	for _, bad := range []string{"", "0x", hex40[:39], hex40 + "00", strings.Repeat("g", 40)} {
		if _, err := ParseAppID(bad); CodeOf(err) != Invalid {
			t.Errorf("ParseAppID(%q): %v, want invalid", bad, err)
		}
	}
	if i, err := ParseInstanceID(""); err != nil || !i.IsZero() {
		t.Errorf("the empty instance id: %v, %v", i, err)
	}
	if _, err := ParseComposeHash(hex40); CodeOf(err) != Invalid {
		t.Errorf("a short compose hash was taken: %v", err)
	}
}

// DO NOT CHANGE: instance ids name disks.
func TestInstanceIDVector(t *testing.T) {
	var app AppID
	for i := range app {
		app[i] = byte(i)
	}
	got := NewInstanceID([]byte(strings.Repeat("\x07", 20)), app).String()
	if want := "eb35bedcacdf064edd85218fdb0911910c0e2604"; got != want {
		t.Errorf("instance id %s, want %s", got, want)
	}
}

func TestErrorsKeepCodeReasonAndCause(t *testing.T) {
	err := fmt.Errorf("outer: %w", Errorf(Denied, "no: %w", fs.ErrPermission).WithReason("because").WithFix("ask"))
	if CodeOf(err) != Denied || ReasonOf(err) != "because" || !errors.Is(err, fs.ErrPermission) {
		t.Errorf("lost on the way: %v", err)
	}
	if CodeOf(errors.New("x")) != Internal || ReasonOf(nil) != "" {
		t.Error("an uncoded error must be internal")
	}
}
