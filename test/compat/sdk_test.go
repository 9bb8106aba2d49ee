package compat

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// surface are the values (not types, not schemas) that the SDK's declarations
// export from one file on.
func surface(t *testing.T, file string) (names []string) {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	text := regexp.MustCompile(`(?s)/\*.*?\*/`).ReplaceAllString(string(b), "")
	for _, m := range regexp.MustCompile(`export \* from "(.+?)"`).FindAllStringSubmatch(text, -1) {
		names = append(names, surface(t, declarations(file, m[1]))...)
	}
	for _, m := range regexp.MustCompile(`(?s)export \{(.*?)\}`).FindAllStringSubmatch(text, -1) {
		for n := range strings.SplitSeq(m[1], ",") {
			if i := strings.Index(n, " as "); i >= 0 && !strings.HasPrefix(strings.TrimSpace(n), "type ") {
				n = n[i+4:]
			}
			if n = strings.TrimSpace(n); n != "" && !strings.HasPrefix(n, "type ") {
				names = append(names, n)
			}
		}
	}
	for _, m := range regexp.MustCompile(`export declare (?:abstract )?(?:const|function|class|enum) ([\w$]+)`).FindAllStringSubmatch(text, -1) {
		names = append(names, m[1])
	}
	names = slices.DeleteFunc(names, func(n string) bool { return strings.HasSuffix(n, "Schema") })
	slices.Sort(names)
	return slices.Compact(names)
}

func declarations(from, to string) string {
	p := filepath.Join(filepath.Dir(from), to)
	if exists(p + ".d.ts") {
		return p + ".d.ts"
	}
	return filepath.Join(p, "index.d.ts")
}

// called runs one of the scripts; answers are by the name of the exported function:
// the first that failed, or "" where all calls were right.
func called(t *testing.T, modules, script string, env ...string) map[string]string {
	t.Helper()
	script, err := filepath.Abs(script)
	if err != nil {
		t.Fatal(err)
	}
	c := exec.CommandContext(t.Context(), "node", script)
	c.Env = append([]string{"PATH=" + os.Getenv("PATH"), "NODE_NO_WARNINGS=1", "SDK=" + filepath.Join(modules, "node_modules", "@phala", "cloud", "dist", "index.mjs")}, env...)
	var out, errs bytes.Buffer
	c.Stdout, c.Stderr = &out, &errs
	if err := c.Run(); err != nil {
		t.Errorf("%s: %v\n%s", filepath.Base(script), err, errs.String())
	}
	got := map[string]string{}
	for sc := bufio.NewScanner(&out); sc.Scan(); {
		var l struct {
			Name, Error string
			OK          bool
		}
		if !strings.HasPrefix(sc.Text(), `{"name":`) {
			continue // the SDK prints receipts
		}
		if err := json.Unmarshal(sc.Bytes(), &l); err != nil {
			t.Fatalf("%s: %v", sc.Text(), err)
		}
		if was, ok := got[l.Name]; ok && (was != "" || l.OK) {
			continue
		}
		if got[l.Name] = l.Error; !l.OK && l.Error == "" {
			got[l.Name] = "failed"
		}
	}
	return got
}

// verdict holds the answers against the table's rows of one group.
func verdict(t *testing.T, got map[string]string, g group) {
	t.Helper()
	for _, e := range exported {
		why, called := got[e.name]
		if e.group != g {
			continue
		}
		switch {
		case !called:
			t.Errorf("%s was not called", e.name)
		case e.reason == "" && why != "":
			t.Errorf("%s: %s", e.name, why)
		case e.reason != "" && why == "":
			t.Errorf("%s works: take its reason out of the table (%s)", e.name, e.reason)
		case e.want != "" && !strings.Contains(why, e.want):
			t.Errorf("%s: %s, want %q", e.name, why, e.want)
		}
	}
}

func TestSDK(t *testing.T) {
	modules := install(t)
	s := newStack(t, nil)
	got := called(t, modules, "sdk.mjs", "PREFIX="+s.tagged("sdk"), "KEY="+s.Key, "SSH_KEY="+sshKey()+" me@test", "KMS_KEY=0x"+hex.EncodeToString(s.Root.K256Public()))
	verdict(t, got, onCloud)
}

// TestSDKSurface: the table has every value that the SDK's type declarations export.
func TestSDKSurface(t *testing.T) {
	declared := surface(t, filepath.Join(install(t), "node_modules", "@phala", "cloud", "dist", "index.d.ts"))
	var listed []string
	for _, e := range exported {
		listed = append(listed, e.name)
	}
	slices.Sort(listed)
	for _, n := range declared {
		if !slices.Contains(listed, n) {
			t.Errorf("the SDK declares %s, the table has not", n)
		}
	}
	for i, n := range listed {
		if !slices.Contains(declared, n) || i > 0 && listed[i-1] == n {
			t.Errorf("the table has %s, which the SDK does not declare, or twice", n)
		}
	}
}
