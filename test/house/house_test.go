package house

import (
	"bufio"
	"bytes"
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/confidential-cloud/phala"

type pkg struct {
	ImportPath string
	Dir        string
	Name       string
	GoFiles    []string
	Imports    []string
}

func (p pkg) rel() string {
	return strings.TrimPrefix(strings.TrimPrefix(p.ImportPath, module), "/")
}

func list(t *testing.T) []pkg {
	t.Helper()
	cmd := exec.Command("go", "list", "-json=ImportPath,Dir,Name,GoFiles,Imports", "./...")
	cmd.Dir = "../.."
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, stderr.String())
	}
	var ps []pkg
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p pkg
		if err := dec.Decode(&p); err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		ps = append(ps, p)
	}
	if len(ps) < 10 {
		t.Fatalf("go list found only %d packages", len(ps))
	}
	return ps
}

// floors: the longest matching prefix decides.
var floors = map[string]int{
	"":    4, // doc.go
	"cvm": 0, "appcompose": 0,
	"keys": 1, "attest": 1, "ratls": 1, "ledger": 1, "governance": 1,
	"attest/fetch": 2, "attest/tdxguest": 2, "attest/sevguest": 2, "attest/simtee": 2,
	"governance/ethereum": 2, "governance/static": 2,
	"internal": 2, "verify": 2, "templates": 2,
	// wire types and clients: what services and verifiers may know of each other
	"kms/kmsapi": 2, "vmm/vmmapi": 2, "gateway/gatewayapi": 2, "guest-agent/guestapi": 2, "api/cloudapi": 2,
	"kms": 3, "gateway": 3, "vmm": 3, "guest-agent": 3, "api": 3,
	"cli": 4, "devcloud": 4, "cmd": 4, "os": 4, "test": 5,
}

func floorOf(rel string) (string, int) {
	for p := rel; ; p = parent(p) {
		if f, ok := floors[p]; ok {
			return p, f
		}
		if p == "" {
			return "", -1
		}
	}
}

func parent(p string) string {
	if i := strings.LastIndexByte(p, '/'); i >= 0 {
		return p[:i]
	}
	return ""
}

func TestImportsGoDown(t *testing.T) {
	for _, p := range list(t) {
		from, ff := floorOf(p.rel())
		if ff < 0 || (from == "" && p.rel() != "") {
			t.Errorf("%s is on no floor: add it to the table, with a reason in docs/design", p.rel())
			continue
		}
		for _, imp := range p.Imports {
			if imp != module && !strings.HasPrefix(imp, module+"/") {
				if ff == 0 && strings.Contains(strings.SplitN(imp, "/", 2)[0], ".") {
					t.Errorf("%s (floor 0) imports %s: floor 0 has the standard library only", p.rel(), imp)
				}
				continue
			}
			rel := strings.TrimPrefix(strings.TrimPrefix(imp, module), "/")
			to, tf := floorOf(rel)
			switch {
			case tf > ff:
				t.Errorf("%s (floor %d) imports %s (floor %d): imports go down", p.rel(), ff, rel, tf)
			case ff == 3 && tf == 3 && from != to:
				t.Errorf("%s imports %s: services know each other's *api packages only", p.rel(), rel)
			case ff == 4 && tf == 4 && from != to && from != "cmd":
				t.Errorf("%s imports %s: doors are imported by nobody", p.rel(), rel)
			}
		}
	}
}

// homes: library prefix -> the only places that may import it.
var homes = map[string][]string{
	"github.com/hashicorp/raft":              {"internal/replica"},
	"github.com/docker/docker":               {"guest-agent/compose", "vmm/container", "internal/registry", "os"}, // vmm/container: the development driver is a client of the local engine
	"github.com/caddyserver/certmagic":       {"gateway/certs"},
	"github.com/ethereum/go-ethereum":        {"governance/ethereum", "internal/wallet", "devcloud"},
	"github.com/danielgtaylor/huma":          {"api"},
	"github.com/google/go-tdx-guest":         {"attest/tdxguest"},
	"github.com/google/go-sev-guest":         {"attest/sevguest"},
	"github.com/google/go-configfs-tsm":      {"attest/tdxguest", "attest/sevguest"},
	"github.com/hanwen/go-fuse":              {"attest/simtee/teefs"},
	"github.com/riverqueue/river":            {"api"},
	"golang.zx2c4.com/wireguard":             {"internal/wgnet"},
	"gvisor.dev/gvisor":                      {"internal/wgnet"},
	"github.com/letsencrypt/pebble":          {},
	"github.com/vishvananda/netlink":         {"guest-agent/vm", "vmm/netplane"}, // both ends of a card: one home in each service
	"github.com/insomniacslk/dhcp":           {"guest-agent/vm", "vmm/netplane"}, // its client, its server
	"github.com/hashicorp/yamux":             {"internal/hostlink"},
	"github.com/spf13/cobra":                 {"cli", "cmd", "devcloud"},
	"github.com/google/go-containerregistry": {"internal/registry", "templates", "vmm/image"},
}

func TestBigLibrariesHaveOneHome(t *testing.T) {
	for _, p := range list(t) {
		rel := p.rel()
		if strings.HasPrefix(rel, "test/") {
			continue
		}
		for _, imp := range p.Imports {
			for lib, allowed := range homes {
				if imp != lib && !strings.HasPrefix(imp, lib+"/") && !strings.HasPrefix(imp, lib+"-") {
					continue
				}
				if !slices.ContainsFunc(allowed, func(h string) bool { return rel == h || strings.HasPrefix(rel, h+"/") }) {
					t.Errorf("%s imports %s: its home is %v", rel, imp, allowed)
				}
			}
		}
	}
}

var badNames = regexp.MustCompile(`^(util|utils|common|helper|helpers|misc|shared|types|models|base|core|manager|pkg)$`)

func TestPackageNames(t *testing.T) {
	for _, p := range list(t) {
		if badNames.MatchString(p.Name) || badNames.MatchString(filepath.Base(p.Dir)) {
			t.Errorf("%s: the name says nothing", p.rel())
		}
	}
}

// TestLowerFloorsArePure: floors 0-1 read no clock, environment or log and start
// no goroutine.
func TestLowerFloorsArePure(t *testing.T) {
	forbidden := map[string][]string{
		"time": {"Now", "Since", "Until", "Sleep", "After", "AfterFunc", "NewTimer", "NewTicker", "Tick"},
		"os":   nil, "log": nil, "log/slog": {"Info", "Warn", "Error", "Debug", "Default"}, "net/http": nil,
	}
	for _, p := range list(t) {
		_, f := floorOf(p.rel())
		if f > 1 || p.rel() == "" {
			continue
		}
		for _, file := range p.GoFiles {
			src, err := parser.ParseFile(token.NewFileSet(), filepath.Join(p.Dir, file), nil, 0)
			if err != nil {
				t.Fatal(err)
			}
			names := map[string]string{}
			for _, im := range src.Imports {
				path := strings.Trim(im.Path.Value, `"`)
				n := filepath.Base(path)
				if im.Name != nil {
					n = im.Name.Name
				}
				names[n] = path
				if fs, bad := forbidden[path]; bad && fs == nil {
					t.Errorf("%s/%s imports %s: floors 0-1 do no I/O", p.rel(), file, path)
				}
			}
			ast.Inspect(src, func(n ast.Node) bool {
				switch n := n.(type) {
				case *ast.GoStmt:
					t.Errorf("%s/%s starts a goroutine", p.rel(), file)
				case *ast.SelectorExpr:
					if x, ok := n.X.(*ast.Ident); ok && slices.Contains(forbidden[names[x.Name]], n.Sel.Name) {
						t.Errorf("%s/%s calls %s.%s: time is an argument", p.rel(), file, x.Name, n.Sel.Name)
					}
				}
				return true
			})
		}
	}
}

// TestNoEffectsAtImport: no init functions outside generated code.
func TestNoEffectsAtImport(t *testing.T) {
	for _, p := range list(t) {
		for _, file := range p.GoFiles {
			path := filepath.Join(p.Dir, file)
			src, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ParseComments)
			if err != nil {
				t.Fatal(err)
			}
			if ast.IsGenerated(src) {
				continue
			}
			for _, d := range src.Decls {
				if fn, ok := d.(*ast.FuncDecl); ok && fn.Name.Name == "init" && fn.Recv == nil {
					t.Errorf("%s/%s has an init function", p.rel(), file)
				}
			}
		}
	}
}

// TestNothingOfThisMachine: no registry hosts and no paths of a workplace in what is committed.
func TestNothingOfThisMachine(t *testing.T) {
	cmd := exec.Command("git", "grep", "-nIE", `registry\.npmjs|registry\.yarnpkg|proxy\.golang\.org|"resolved": *"http|/work/(main|shared)`, "--", ".", ":!test/house")
	cmd.Dir = "../.."
	out, _ := cmd.Output() // exit 1 = nothing found
	for s := bufio.NewScanner(bytes.NewReader(out)); s.Scan(); {
		t.Errorf("%s", s.Text())
	}
}
