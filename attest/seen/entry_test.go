package seen

import "testing"

// Two keys may have one hash: the bytes decide.
func TestEqualHashesAreNotEqualKeys(t *testing.T) {
	e := &entry[int]{key: []byte("abc"), sizes: []int{2, 1}}
	for _, tc := range []struct {
		parts []string
		want  bool
	}{
		{[]string{"ab", "c"}, true}, {[]string{"a", "bc"}, false}, {[]string{"ab", "x"}, false}, {[]string{"ab"}, false},
		{[]string{"ab", ""}, false}, {[]string{"ab", "c", ""}, false}, {nil, false},
	} {
		var parts [][]byte
		for _, p := range tc.parts {
			parts = append(parts, []byte(p))
		}
		if got := e.is(parts); got != tc.want {
			t.Errorf("%q: %v", tc.parts, got)
		}
	}
}
