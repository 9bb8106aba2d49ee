package store

import "testing"

func FuzzParseRef(f *testing.F) {
	for _, s := range []string{"", "my-app", "cvm_00000000000040008000000000000001", "00000000-0000-4000-8000-000000000001", "app_00112233445566778899aabbccddeeff00112233", "instance_x", "7", "+7", "-7", "cvm_"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		r := ParseRef(s)
		n := 0
		for _, set := range []bool{r.UUID != "", r.AppOrInstance != "", r.Instance != "", r.ID != 0, r.Name != ""} {
			if set {
				n++
			}
		}
		if n > 1 || n == 0 && s != "" {
			t.Errorf("%q is %+v", s, r)
		}
		if r.UUID != "" && len(r.UUID) != 36 {
			t.Errorf("%q gives uuid %q", s, r.UUID)
		}
	})
}
