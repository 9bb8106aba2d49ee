package storetest

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/confidential-cloud/phala/api/cloudapi"
	"github.com/confidential-cloud/phala/api/store"
)

func names(list []store.CVM) (out []string) {
	for _, c := range list {
		out = append(out, c.Name)
	}
	return out
}

func listing(t *testing.T, x *suite) {
	ctx := t.Context()
	a := must[store.Principal](t)(x.s.Admin(ctx))
	b := must[store.Principal](t)(x.s.AddWorkspace(ctx, "b", "b", "", "user"))
	var made []store.CVM
	for i, app := range []string{"aa", "bb", "aa", "cc", "dd"} {
		made = append(made, must[store.CVM](t)(x.vm(t, a, i+1, fmt.Sprintf("Vm_%d", i), app)))
	}
	foreign := must[store.CVM](t)(x.vm(t, b, 9, "foreign", "ee"))
	change := func(c store.CVM, fn func(*store.Change)) {
		t.Helper()
		must[store.CVM](t)(x.s.Change(ctx, c.ID, x.enqueue, func(ch *store.Change) error { fn(ch); return nil }))
	}
	change(made[4], func(c *store.Change) { c.CVM.DeletedAt = c.At })
	change(made[1], func(c *store.Change) { c.CVM.Status = cloudapi.StatusRunning; c.Finish(&c.Ops[0], store.Done) })

	for _, tt := range []struct {
		q     store.ListQuery
		want  []string
		total int
	}{
		{store.ListQuery{}, []string{"Vm_3", "Vm_2", "Vm_1", "Vm_0"}, 4},
		{store.ListQuery{Limit: 2, Offset: 1}, []string{"Vm_2", "Vm_1"}, 4},
		{store.ListQuery{Limit: 2, Offset: 9}, nil, 4},
		{store.ListQuery{App: "aa"}, []string{"Vm_2", "Vm_0"}, 2},
		{store.ListQuery{Search: "vM_"}, []string{"Vm_3", "Vm_2", "Vm_1", "Vm_0"}, 4},
		{store.ListQuery{Search: "M_3"}, []string{"Vm_3"}, 1},
		{store.ListQuery{Search: "vm_33"}, nil, 0},
		{store.ListQuery{Search: "vm_4"}, nil, 0}, // deleted
		{store.ListQuery{Search: "m_3", Status: []string{cloudapi.StatusRunning}}, nil, 0},
		{store.ListQuery{Search: made[1].UUID}, []string{"Vm_1"}, 1},
		{store.ListQuery{Search: strings.ToUpper(made[1].UUID[:30])}, []string{"Vm_3", "Vm_2", "Vm_1", "Vm_0"}, 4},
		{store.ListQuery{Search: foreign.UUID}, nil, 0},
		{store.ListQuery{Search: "vm"}, []string{"Vm_3", "Vm_2", "Vm_1", "Vm_0"}, 4},
		{store.ListQuery{Search: "m%"}, nil, 0},
		{store.ListQuery{Search: "_%3"}, nil, 0},
		{store.ListQuery{Search: "vé€m\x00"}, nil, 0},
		{store.ListQuery{Search: strings.Repeat("vm_3", 300)}, nil, 0},
		{store.ListQuery{Search: "m?3"}, nil, 0},
		{store.ListQuery{Search: "CC"}, []string{"Vm_3"}, 1},
		{store.ListQuery{Status: []string{cloudapi.StatusRunning, "x"}}, []string{"Vm_1"}, 1},
		{store.ListQuery{Node: made[0].NodeID + 100}, nil, 0},
		{store.ListQuery{Node: made[0].NodeID, Limit: 1}, []string{"Vm_3"}, 4},
	} {
		tt.q.Workspace = a.WorkspaceID
		page, total, err := x.s.Page(ctx, tt.q)
		if err != nil || total != tt.total || !slices.Equal(names(page), tt.want) {
			t.Errorf("%+v: %v of %d, %v; want %v of %d", tt.q, names(page), total, err, tt.want, tt.total)
		}
		if tt.q.Limit != 0 {
			continue
		}
		var found []string
		for before := int64(0); ; {
			some := must[[]store.CVM](t)(x.s.Older(ctx, tt.q, before, 2))
			if found = append(found, names(some)...); len(some) < 2 {
				break
			}
			before = some[1].ID
		}
		if !slices.Equal(found, tt.want) {
			t.Errorf("%+v, two at a time: %v, want %v", tt.q, found, tt.want)
		}
	}
	appPages(t, x, a.WorkspaceID)
	on := must[map[int64][]store.Resident](t)(x.s.OnNodes(ctx, []int64{made[0].NodeID, made[0].NodeID + 100}))
	if all := on[made[0].NodeID]; len(on) != 1 || len(all) != 5 || all[4].ID != foreign.ID || all[4].UUID != foreign.UUID || all[1].Status != cloudapi.StatusRunning ||
		!all[4].UpdatedAt.Equal(foreign.UpdatedAt) {
		t.Errorf("on the node: %+v", on)
	}
	ops := must[map[int64][]store.Operation](t)(x.s.OpenOpsOf(ctx, []int64{made[0].ID, made[1].ID, made[2].ID}))
	if len(ops) != 2 || len(ops[made[0].ID]) != 1 || ops[made[0].ID][0].CVMID != made[0].ID || len(ops[made[2].ID]) != 1 {
		t.Errorf("open operations: %+v", ops)
	}
	for name, want := range map[string]bool{"Vm_0": true, "Vm_4": false, "foreign": false} {
		if got := must[bool](t)(x.s.NameTaken(ctx, a.WorkspaceID, name)); got != want {
			t.Errorf("name %s taken: %v", name, got)
		}
	}
	ids := must[[]int64](t)(x.s.NodeIDs(ctx, []string{"http://new", "http://vmm", "http://new"}))
	if len(ids) != 3 || ids[0] != ids[2] || ids[1] != made[0].NodeID || ids[0] == ids[1] {
		t.Errorf("node ids: %v", ids)
	}
}

func appPages(t *testing.T, x *suite, workspace int64) {
	t.Helper()
	for _, tt := range []struct {
		q     store.ListQuery
		want  string
		total int
	}{
		{store.ListQuery{}, "[[Vm_3] [Vm_2 Vm_0] [Vm_1]]", 3},
		{store.ListQuery{Limit: 1, Offset: 1}, "[[Vm_2 Vm_0]]", 3},
		{store.ListQuery{Search: "vm_0"}, "[[Vm_0]]", 1},
		{store.ListQuery{Search: "none"}, "[]", 0},
	} {
		tt.q.Workspace = workspace
		page, total, err := x.s.AppPage(t.Context(), tt.q)
		var got [][]string
		for _, p := range page {
			got = append(got, names(p))
		}
		if err != nil || total != tt.total || fmt.Sprint(got) != tt.want {
			t.Errorf("apps of %+v: %v of %d, %v; want %s of %d", tt.q, got, total, err, tt.want, tt.total)
		}
	}
}
