package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"regexp"
	"strings"
	"time"
)

// pkg is one line of the lock file.
type pkg struct {
	set, name, version, arch, sha256 string
}

var lockLine = regexp.MustCompile(`^(base|dev|boot) ([a-z0-9][a-z0-9.+-]*) ([A-Za-z0-9.+~:-]+) (amd64|all) ([0-9a-f]{64})$`)

// readLock reads the lock file strictly.
func readLock(name string) (packages []pkg, err error) {
	b, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	for i, line := range strings.Split(strings.TrimSuffix(string(b), "\n"), "\n") {
		if strings.HasPrefix(line, "#") {
			continue
		}
		m := lockLine.FindStringSubmatch(line)
		if m == nil {
			return nil, fmt.Errorf("%s line %d: want \"SET NAME VERSION ARCHITECTURE SHA256\"", name, i+1)
		}
		packages = append(packages, pkg{m[1], m[2], m[3], m[4], m[5]})
	}
	if len(packages) == 0 {
		return nil, errors.New(name + ": no packages")
	}
	return packages, nil
}

func (p pkg) purl() string {
	return fmt.Sprintf("pkg:deb/debian/%s@%s?arch=%s&distro=trixie", url.PathEscape(p.name), url.PathEscape(p.version), p.arch)
}

// billOfMaterials is a CycloneDX 1.6 document of what the image is made of.
func billOfMaterials(c config, packages []pkg) ([]byte, error) {
	name := "phala"
	if c.dev {
		name = "phala-dev"
	}
	var components []map[string]any
	for _, p := range packages {
		if p.set == "dev" && !c.dev {
			continue
		}
		components = append(components, map[string]any{"type": "library", "name": p.name, "version": p.version, "purl": p.purl(), "bom-ref": p.purl(),
			"hashes": []map[string]string{{"alg": "SHA-256", "content": p.sha256}}})
	}
	for _, program := range []string{"phala-guest-agent", "phala-initramfs"} {
		components = append(components, map[string]any{"type": "application", "name": program, "version": c.version, "bom-ref": program})
	}
	b, err := json.MarshalIndent(map[string]any{"bomFormat": "CycloneDX", "specVersion": "1.6", "version": 1,
		"metadata": map[string]any{"timestamp": time.Unix(c.epoch, 0).UTC().Format(time.RFC3339),
			"component": map[string]any{"type": "operating-system", "name": name, "version": c.version, "bom-ref": name}},
		"components": components}, "", " ")
	return append(b, '\n'), err
}
