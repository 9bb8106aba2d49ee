package api_test

import (
	"testing"

	"github.com/confidential-cloud/phala/api/cloudapi"
)

func TestDeployAndPower(t *testing.T) {
	w := newWorld(t, nil)
	vm, done := w.deploy("my-app", 1, nil)
	if done.Status != cloudapi.StatusRunning {
		t.Fatalf("deploy ended %+v", done)
	}
	if vm.Status != cloudapi.StatusCreating {
		t.Errorf("commit said %q", vm.Status)
	}
}
