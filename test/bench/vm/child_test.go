package vm

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/confidential-cloud/phala/api"
	"github.com/confidential-cloud/phala/api/cloudapi"
	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/kms/kmsapi"
)

// envChild makes this program the cloud API, so that its memory and processor time
// are the API's alone.
const envChild = "PHALA_BENCH_API"

type childConfig struct {
	Dir, DatabaseURL string
	Nodes            []string // URLs
	Token            string   // file
}

// aKMS gives every app some key: what a KMS takes is not measured here.
type aKMS struct{}

func (aKMS) EnvKey(_ context.Context, app cvm.AppID) (kmsapi.EnvKey, error) {
	return kmsapi.EnvKey{PublicKey: append(app[:], make([]byte, 12)...)}, nil
}

func (aKMS) Meta(context.Context) (kmsapi.Meta, error) {
	return kmsapi.Meta{}, cvm.Errorf(cvm.Unavailable, "no KMS here")
}

// serveAPI prints an admin's key and the address, and serves until it is interrupted.
func serveAPI(file string) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var c childConfig
	b, err := os.ReadFile(file)
	if err == nil {
		err = json.Unmarshal(b, &c)
	}
	if err != nil {
		return err
	}
	s, err := api.New(apiConfig(c))
	if err != nil {
		return err
	}
	key, err := s.NewAdminKey(ctx, "bench")
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println(key, l.Addr())
	return s.Serve(ctx, l)
}

func apiConfig(c childConfig) api.Config {
	ac := api.DefaultConfig()
	ac.Dir, ac.DatabaseURL, ac.Keys, ac.KMS.RootSPKI = c.Dir, c.DatabaseURL, aKMS{}, "3059"
	ac.Log = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	for _, n := range c.Nodes {
		ac.Nodes = append(ac.Nodes, api.NodeConfig{URL: n, TokenFile: c.Token})
	}
	ac.KMS.URLs, ac.KMS.GuestURLs = []string{"https://172.31.77.1:8701"}, []string{"https://172.31.77.1:8701"}
	ac.Gateway = api.GatewayConfig{Domain: "dev.localhost", Port: 8443, GuestURLs: []string{"https://172.31.77.1:8740"}}
	return ac
}

// cloudAPI is a running child.
type cloudAPI struct {
	*cloudapi.Client
	pid  int
	slug string // of the workspace
	stop func()
}

func startAPI(t *testing.T, c childConfig) cloudAPI {
	t.Helper()
	file := filepath.Join(c.Dir, "child.json")
	if err := os.WriteFile(file, []byte(encode(t, c)), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0]) //nolint:noctx // ends with the test
	cmd.Env = append(os.Environ(), envChild+"="+file)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM} // a test that is killed leaves no API
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	stopped := false
	stop := func() {
		if !stopped {
			stopped = true
			_ = cmd.Process.Signal(os.Interrupt)
			if err := cmd.Wait(); err != nil {
				t.Error("the API ended: ", err)
			}
		}
	}
	t.Cleanup(stop)
	line := bufio.NewScanner(out)
	if !line.Scan() {
		t.Fatal("the API did not start")
	}
	key, addr, _ := strings.Cut(line.Text(), " ")
	return cloudAPI{Client: &cloudapi.Client{Base: "http://" + addr + cloudapi.Prefix, Key: key}, pid: cmd.Process.Pid, stop: stop}
}
