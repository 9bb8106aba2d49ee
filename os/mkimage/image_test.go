package main

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/confidential-cloud/phala/attest/measure"
	"github.com/confidential-cloud/phala/internal/verity"
)

// built is an image that os/build.sh left in build/images.
func built(t *testing.T, flavour string) string {
	t.Helper()
	version, err := os.ReadFile("../VERSION")
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join("../../build/images", flavour+strings.TrimSpace(string(version)))
	if _, err := os.Stat(filepath.Join(dir, digestFile)); err != nil {
		t.Skip("SKIPPED: " + dir + " is not built: make image")
	}
	if _, err := exec.LookPath("unsquashfs"); err != nil {
		t.Skip("SKIPPED: unsquashfs is not installed")
	}
	return dir
}

// listing is one line of unsquashfs -lln.
type listing struct{ mode, owner, name, link string }

func listed(t *testing.T, dir string) (all []listing) {
	t.Helper()
	cmd := exec.Command("unsquashfs", "-lln", filepath.Join(dir, rootfsFile))
	cmd.Env = append(os.Environ(), "TZ=UTC")
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(out)) { // a time of the build would make each build another image
		if strings.Contains(line, " squashfs-root") && !strings.Contains(line, " 2026-01-01 00:00 ") {
			t.Errorf("not of the fixed time: %s", line)
		}
	}
	line := regexp.MustCompile(`(?m)^(\S{10}) (\d+/\d+) .* squashfs-root(/?\S*?)(?: -> (.*))?$`)
	for _, m := range line.FindAllStringSubmatch(string(out), -1) {
		all = append(all, listing{m[1], m[2], m[3], m[4]})
	}
	if len(all) < 1000 {
		t.Fatalf("unsquashfs listed only %d files", len(all))
	}
	return all
}

func content(t *testing.T, dir, name string) string {
	t.Helper()
	out, err := exec.Command("unsquashfs", "-cat", filepath.Join(dir, rootfsFile), name).Output()
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return string(out)
}

// unwanted in a production image: package managers, ways to log in, interpreters that
// only they need.
var unwanted = regexp.MustCompile(`/(apt|apt-get|aptitude|dpkg|dpkg-deb|rpm|snap|pip3?|npm|perl|python3?|su|sudo|login|passwd|chsh|newgrp|agetty|getty|sulogin|useradd|usermod|sshd|ssh|systemd|unix_update_password|ctr)$`)

func TestProdRootFilesystem(t *testing.T) {
	dir := built(t, "phala-")
	seen := map[string]bool{}
	for _, f := range listed(t, dir) {
		seen[f.name] = true
		if strings.ContainsAny(f.mode, "sS") {
			t.Errorf("%s is setuid or setgid (%s)", f.name, f.mode)
		}
		if f.mode[8] == 'w' && f.mode[0] != 'l' && f.mode[9] != 't' && f.mode[0] != 'c' {
			t.Errorf("%s is writable by others (%s)", f.name, f.mode)
		}
		bin := strings.HasPrefix(f.name, "/usr/bin/") || strings.HasPrefix(f.name, "/usr/sbin/") || strings.HasPrefix(f.name, "/usr/local/")
		if bin && unwanted.MatchString(f.name) {
			t.Errorf("%s is in a production image", f.name)
		}
		if strings.HasPrefix(f.name, "/var/lib/dpkg") || strings.HasPrefix(f.name, "/var/cache/apt") || strings.Contains(f.name, "ssh_host_") || f.name == "/etc/machine-id" {
			t.Errorf("%s must not be in an image", f.name)
		}
	}
	for _, want := range []string{"/usr/bin/phala-guest-agent", "/usr/sbin/dockerd", "/usr/sbin/cryptsetup", "/usr/sbin/nft", "/usr/sbin/chronyd", "/var/lib/phala", "/dstack"} {
		if !seen[want] {
			t.Errorf("%s is missing", want)
		}
	}
	for user := range strings.Lines(content(t, dir, "etc/passwd")) {
		if !strings.HasSuffix(user, ":/usr/sbin/nologin\n") {
			t.Errorf("an account with a shell: %s", user)
		}
	}
	if release := content(t, dir, osRelease); !strings.Contains(release, "\nVARIANT_ID=prod\n") {
		t.Errorf("os-release does not say prod:\n%s", release)
	}
	if fi, err := os.Stat(filepath.Join(dir, rootfsFile)); err != nil || fi.Size() > 160<<20 {
		t.Errorf("rootfs.img has %d bytes, at most %d (%v)", fi.Size(), 160<<20, err)
	}
}

func TestDevRootFilesystem(t *testing.T) {
	dir := built(t, "phala-dev-")
	seen := map[string]bool{}
	for _, f := range listed(t, dir) {
		seen[f.name] = true
		if strings.ContainsAny(f.mode, "sS") || strings.Contains(f.name, "ssh_host_") {
			t.Errorf("%s (%s) must not be in an image", f.name, f.mode)
		}
	}
	if !seen["/usr/sbin/sshd"] || !strings.Contains(content(t, dir, "etc/passwd"), "root:x:0:0:root:/root:/bin/bash\n") {
		t.Error("the dev flavour has no sshd, or root no shell")
	}
	if !strings.Contains(content(t, dir, "etc/ssh/sshd_config.d/phala.conf"), "PasswordAuthentication no\n") {
		t.Error("sshd takes passwords")
	}
	var m metadata
	readJSON(t, filepath.Join(dir, metadataFile), &m)
	if release := content(t, dir, osRelease); !m.IsDev || !strings.Contains(release, "\nVARIANT_ID=dev\n") {
		t.Error("the flavour is not visible")
	}
}

func TestNoPasswords(t *testing.T) {
	for _, flavour := range []string{"phala-", "phala-dev-"} {
		t.Run(flavour, func(t *testing.T) {
			n := 0
			for user := range strings.Lines(content(t, built(t, flavour), "etc/shadow")) {
				if n++; strings.Split(user, ":")[1] != "*" {
					t.Errorf("an account with a password or none: %q", user)
				}
			}
			if n < 10 {
				t.Errorf("etc/shadow has %d accounts", n)
			}
		})
	}
}

// TestModulesOfTheImage: the text index that modprobe reads names only modules that are
// there, dependencies included.
func TestModulesOfTheImage(t *testing.T) {
	dir := built(t, "phala-")
	seen := map[string]bool{}
	tree := ""
	for _, f := range listed(t, dir) {
		seen[f.name] = true
		if d, ok := strings.CutSuffix(f.name, "/modules.dep"); ok {
			tree = d
		}
	}
	n := 0
	for line := range strings.Lines(content(t, dir, strings.TrimPrefix(tree, "/")+"/modules.dep")) {
		for _, p := range strings.Fields(strings.Replace(line, ":", " ", 1)) {
			n++
			if !seen[tree+"/"+p] {
				t.Errorf("modules.dep names %s, which is not there", p)
			}
		}
	}
	for _, want := range []string{"/kernel/drivers/md/dm-crypt.ko", "/kernel/drivers/net/wireguard/wireguard.ko", "/kernel/drivers/virt/coco/tdx-guest/tdx-guest.ko", "/kernel/net/netfilter/nf_tables.ko"} {
		if !seen[tree+want] {
			t.Errorf("the image lacks %s", want)
		}
	}
	if n < 200 {
		t.Errorf("modules.dep names %d modules", n)
	}
}

func readJSON(t *testing.T, name string, v any) {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, v); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
}

// TestDescription: what describes the image is about its files.
func TestDescription(t *testing.T) {
	for _, flavour := range []string{"phala-", "phala-dev-"} {
		t.Run(flavour, func(t *testing.T) {
			dir := built(t, flavour)
			read := func(name string) []byte {
				b, err := os.ReadFile(filepath.Join(dir, name))
				if err != nil {
					t.Fatal(err)
				}
				return b
			}
			var m metadata
			readJSON(t, filepath.Join(dir, metadataFile), &m)
			root, err := verity.ParseCmdline(m.Cmdline)
			if err != nil {
				t.Fatal(err)
			}
			rootfs := read(m.Rootfs)
			if err := verity.Verify(t.Context(), bytes.NewReader(rootfs), int64(len(rootfs)), root); err != nil {
				t.Error(err)
			}
			img, err := measure.New(measure.Files{Firmware: read(m.BIOS), Kernel: read(m.Kernel), Initrd: read(m.Initrd), Cmdline: m.Cmdline})
			if err != nil {
				t.Fatal(err)
			}
			if doc, err := img.Document(); err != nil || !bytes.Equal(doc, read(tdxFile)) {
				t.Errorf("%s is not about these files (%v)", tdxFile, err)
			}
			for _, name := range []string{firmwareFile, kernelFile, initrdFile, metadataFile, tdxFile, sbomFile} {
				if !bytes.Contains(read(sumsFile), []byte("  "+name+"\n")) {
					t.Errorf("%s does not list %s", sumsFile, name)
				}
			}
			checkBOM(t, dir, m)
		})
	}
}

func checkBOM(t *testing.T, dir string, m metadata) {
	t.Helper()
	lock := "../packages.lock"
	if m.Unlocked {
		lock = "../cache/unlocked.lock"
	}
	packages, err := readLock(lock)
	if err != nil {
		t.Fatal(err)
	}
	var bom struct {
		BOMFormat  string
		Components []struct{ Purl string }
	}
	readJSON(t, filepath.Join(dir, sbomFile), &bom)
	var have []string
	for _, c := range bom.Components {
		have = append(have, c.Purl)
	}
	for _, p := range packages {
		if in := slices.Contains(have, p.purl()); in == (p.set == "dev" && !m.IsDev) {
			t.Errorf("%s %s (%s): in the bill of materials: %v", p.name, p.version, p.set, in)
		}
	}
}

// TestContainerHasTheSameRoot: the machine's root filesystem is the container image's
// and what is ours on top, nothing else.
func TestContainerHasTheSameRoot(t *testing.T) {
	dir := built(t, "phala-")
	f, err := os.Open("../../build/images/phala-container/rootfs.tar")
	if err != nil {
		t.Skip("SKIPPED: the container image is not built: make image")
	}
	defer f.Close()
	want := map[string]bool{}
	for r := tar.NewReader(f); ; {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		want["/"+clean(h.Name)] = true
	}
	for _, e := range listed(t, dir) {
		ours := e.name == "" || e.name == "/dstack" || e.name == "/usr/bin/phala-guest-agent" || e.name == "/var/lib/phala" || strings.HasPrefix(e.name, "/usr/lib/modules")
		if !ours && !want[e.name] {
			t.Errorf("%s is in the machine's root filesystem only", e.name)
		}
		delete(want, e.name)
	}
	for name := range want {
		if name != "/" {
			t.Errorf("%s is in the container's root filesystem only", name)
		}
	}
}

// TestModprobeReadsTheIndices: the image's own kmod finds modules by name, by alias and
// with what they depend on.
func TestModprobeReadsTheIndices(t *testing.T) {
	dir := built(t, "phala-")
	root := filepath.Join(t.TempDir(), "root")
	out, err := exec.Command("unsquashfs", "-no-progress", "-quiet", "-d", root, filepath.Join(dir, rootfsFile), "usr/bin/kmod", "usr/sbin/modprobe", "usr/lib64",
		"usr/lib/modules", "usr/lib/x86_64-linux-gnu").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	releases, _ := filepath.Glob(filepath.Join(root, "usr/lib/modules/*"))
	if len(releases) != 1 {
		t.Fatalf("kernels: %v", releases)
	}
	for what, want := range map[string][]string{
		"wireguard":         {"udp_tunnel.ko", "wireguard.ko"},
		"crypto-aegis128":   {"aegis128.ko"},
		"ipt_MASQUERADE":    {"x_tables.ko", "xt_MASQUERADE.ko"},
		"fs-xfs":            {"xfs.ko"},
		"no_such_module_xy": nil,
	} {
		cmd := exec.Command(filepath.Join(root, "usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2"), "--argv0", "modprobe", "--library-path", filepath.Join(root, "usr/lib/x86_64-linux-gnu"),
			filepath.Join(root, "usr/bin/kmod"), "-d", filepath.Join(root, "usr"), "-S", filepath.Base(releases[0]), "--show-depends", what)
		out, err := cmd.CombinedOutput()
		if what == "no_such_module_xy" && err == nil {
			t.Errorf("%s was found: %s", what, out)
		}
		for _, w := range want {
			if !strings.Contains(string(out), "/"+w) {
				t.Errorf("modprobe --show-depends %s lacks %s: %v %s", what, w, err, out)
			}
		}
	}
}
