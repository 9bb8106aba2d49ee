package main

import (
	"bytes"
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// module is one kernel module, unpacked.
type module struct {
	path    string // below usr/lib/modules/<release>, without .xz
	name    string // with _ for -
	depends []string
	aliases []string
	soft    []string // of softdep, as written
	content []byte
}

type modules struct {
	release string
	all     []module // sorted by path
	early   []module // the initramfs's, in the order in which they are loaded
	builtin []byte   // modules.builtin
	modinfo []byte   // modules.builtin.modinfo
}

// kernelTree finds modules in an unpacked kernel package.
type kernelTree struct {
	ctx   context.Context // of the build: xz is run
	dir   string
	paths map[string]string // name: path of the .ko.xz below dir
	got   map[string]module
}

func plain(name string) string {
	name, _, _ = strings.Cut(path.Base(name), ".ko")
	return strings.ReplaceAll(name, "-", "_")
}

// selectModules reads the list and takes what it names, with dependencies.
func selectModules(ctx context.Context, boot, list string) (m modules, err error) {
	trees, err := filepath.Glob(filepath.Join(boot, "usr/lib/modules/*"))
	if err != nil || len(trees) != 1 {
		return m, fmt.Errorf("%s holds %d kernels, want one", boot, len(trees))
	}
	m.release = filepath.Base(trees[0])
	k := kernelTree{ctx: ctx, dir: trees[0], paths: map[string]string{}, got: map[string]module{}}
	if err := k.scan(); err != nil {
		return m, err
	}
	text, err := os.ReadFile(list)
	if err != nil {
		return m, err
	}
	section := ""
	for i, line := range strings.Split(string(text), "\n") {
		line = strings.TrimSpace(line)
		switch {
		case line == "" || line[0] == '#':
			continue
		case line[0] == '[':
			section = line
			continue
		}
		took, err := k.take(line)
		if err != nil {
			return m, fmt.Errorf("%s line %d: %w", filepath.Base(list), i+1, err)
		}
		if section == "[initramfs]" {
			m.early = append(m.early, took...)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(k.got)) {
		m.all = append(m.all, k.got[name])
	}
	slices.SortFunc(m.all, func(a, b module) int { return strings.Compare(a.path, b.path) })
	m.builtin, err = os.ReadFile(filepath.Join(k.dir, "modules.builtin"))
	if err != nil {
		return m, err
	}
	m.modinfo, err = os.ReadFile(filepath.Join(k.dir, "modules.builtin.modinfo"))
	return m, err
}

func (k kernelTree) scan() error {
	return filepath.WalkDir(k.dir, func(p string, d os.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(p, ".ko.xz") {
			rel, _ := filepath.Rel(k.dir, p)
			k.paths[plain(p)] = rel
		}
		return err
	})
}

// take adds what one line names and returns the new ones, dependencies first.
func (k kernelTree) take(line string) (took []module, err error) {
	names := []string{plain(line)}
	if dir, all := strings.CutSuffix(line, "/*"); all {
		names = nil
		for name, p := range k.paths {
			if path.Dir(p) == dir {
				names = append(names, name)
			}
		}
		slices.Sort(names)
	}
	if len(names) == 0 {
		return nil, fmt.Errorf("%s: no module is there", line)
	}
	for _, n := range names {
		if took, err = k.add(n, took); err != nil {
			return nil, err
		}
	}
	return took, nil
}

func (k kernelTree) add(name string, took []module) ([]module, error) {
	if _, there := k.got[name]; there {
		return took, nil
	}
	p, ok := k.paths[name]
	if !ok {
		return nil, fmt.Errorf("the kernel has no module %s (built in? then the line is not needed)", name)
	}
	content, err := exec.CommandContext(k.ctx, "xz", "-dc", filepath.Join(k.dir, p)).Output()
	if err != nil {
		return nil, fmt.Errorf("xz -dc %s: %w", p, err)
	}
	m, err := parseModule(strings.TrimSuffix(p, ".xz"), content)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", p, err)
	}
	k.got[name] = m
	// Soft dependencies are taken when they are modules; many are built in.
	for _, d := range append(slices.Clone(m.depends), softNames(m.soft)...) {
		if _, ok := k.paths[d]; !ok && !slices.Contains(m.depends, d) {
			continue
		}
		if took, err = k.add(d, took); err != nil {
			return nil, err
		}
	}
	return append(took, m), nil
}

func softNames(soft []string) (names []string) {
	for _, s := range soft {
		for _, w := range strings.Fields(s) {
			if w != "pre:" && w != "post:" && w != "platform:" {
				names = append(names, plain(w))
			}
		}
	}
	return names
}

// parseModule reads a module's .modinfo section: NUL-terminated key=value strings.
func parseModule(p string, content []byte) (m module, err error) {
	m = module{path: p, name: plain(p), content: content}
	f, err := elf.NewFile(bytes.NewReader(content))
	if err != nil {
		return m, err
	}
	s := f.Section(".modinfo")
	if s == nil {
		return m, errors.New("no .modinfo section")
	}
	info, err := s.Data()
	if err != nil {
		return m, err
	}
	for _, kv := range strings.Split(string(info), "\x00") {
		switch key, v, _ := strings.Cut(kv, "="); key {
		case "depends":
			for _, d := range strings.Split(v, ",") {
				if d != "" {
					m.depends = append(m.depends, plain(d))
				}
			}
		case "alias":
			m.aliases = append(m.aliases, v)
		case "softdep":
			m.soft = append(m.soft, v)
		}
	}
	return m, nil
}

// indices are the files that modprobe reads, and their text form for people.
func (m modules) indices() map[string][]byte {
	byName := map[string]module{}
	for _, mod := range m.all {
		byName[mod.name] = mod
	}
	var dep, alias, soft strings.Builder
	var deps, aliases, builtin []keyed
	for _, mod := range m.all {
		// modprobe loads from the last to the first: nearest dependency first.
		var order []string
		var walk func(module)
		walk = func(x module) {
			for _, d := range x.depends {
				p := byName[d].path
				if i := slices.Index(order, p); i >= 0 {
					order = slices.Delete(order, i, i+1)
				}
				order = append(order, p)
				walk(byName[d])
			}
		}
		walk(mod)
		line := mod.path + ":" + strings.Join(append([]string{""}, order...), " ")
		fmt.Fprintln(&dep, line)
		deps = append(deps, keyed{moduleName(mod.name), line})
		for _, a := range mod.aliases {
			fmt.Fprintf(&alias, "alias %s %s\n", a, mod.name)
			aliases = append(aliases, keyed{moduleName(a), moduleName(mod.name)})
		}
		for _, s := range mod.soft {
			fmt.Fprintf(&soft, "softdep %s %s\n", mod.name, s)
		}
	}
	for path := range strings.Lines(string(m.builtin)) {
		name := strings.TrimSuffix(filepath.Base(strings.TrimSpace(path)), ".ko")
		builtin = append(builtin, keyed{moduleName(name), ""})
	}
	return map[string][]byte{
		"modules.dep.bin": kmodIndex(deps), "modules.alias.bin": kmodIndex(aliases), "modules.builtin.bin": kmodIndex(builtin), "modules.symbols.bin": kmodIndex(nil),
		"modules.dep": []byte(dep.String()), "modules.alias": []byte(alias.String()), "modules.softdep": []byte(soft.String()),
		"modules.builtin": m.builtin, "modules.builtin.modinfo": m.modinfo, "modules.symbols": nil, "modules.devname": nil}
}
