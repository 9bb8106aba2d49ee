package cloud

import (
	"context"
	"crypto/sha256"
	"fmt"
	"net"
	"testing"

	"github.com/google/uuid"

	"github.com/confidential-cloud/phala/appcompose"
	"github.com/confidential-cloud/phala/governance/ethereum"
	"github.com/confidential-cloud/phala/vmm/vmmapi"
)

// define puts a machine on the node past the cloud API, for what the CLI does not
// write into an app-compose, or to have one that nobody else looks at. Its app is
// allowed on chain. It goes when the test ends.
func define(t *testing.T, name, compose string, change func(*appcompose.Document)) vmmapi.VM {
	t.Helper()
	no := false
	doc := appcompose.Document{
		ManifestVersion: 2, Name: name, Runner: appcompose.RunnerDockerCompose, DockerComposeFile: compose,
		KMSEnabled: true, GatewayEnabled: true, KeyProvider: appcompose.ProviderKMS, KeyProviderID: theCloud.KMSRoot(),
		AllowedEnvs: []string{}, SecureTime: &no,
	}
	if change != nil {
		change(&doc)
	}
	raw, err := appcompose.Encode(&doc)
	if err != nil {
		t.Fatal(err)
	}
	o, err := theCloud.Owner(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	app, err := o.DeployApp(t.Context(), ethereum.AppParams{Device: theCloud.Hardware().DeviceID(), ComposeHash: sha256.Sum256(raw)}, nil)
	if err != nil {
		t.Fatal(err)
	}
	node := theVMM(t)
	vm, err := node.Put(t.Context(), vmmapi.Spec{
		ID: uuid.NewString(), Name: name, AppID: app, App: vmmapi.App{AppCompose: raw}, Restart: "never",
		Resources:   vmmapi.Resources{VCPU: 1, MemoryMiB: 2048, DiskMiB: 20 << 10},
		KMSURLs:     theCloud.KMSURLs(),
		GatewayURLs: []string{"https://" + net.JoinHostPort(theCloud.Bridge(), fmt.Sprint(theCfg.Ports.Tunnel))},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := node.Delete(context.WithoutCancel(t.Context()), vm.Spec.ID, false); err != nil {
			t.Errorf("deleting %s: %v", name, err)
		}
	})
	return vm
}
