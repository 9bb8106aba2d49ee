package collateral_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/confidential-cloud/phala/attest/collateral"
)

func TestFloorText(t *testing.T) {
	root := strings.Repeat("0", 64)
	var f collateral.Floor
	if err := json.Unmarshal([]byte(`{"`+root+`/qe": 7, "`+root+`/crl/00": 0}`), &f); err != nil || len(f) != 2 || f[root+"/qe"].Int64() != 7 {
		t.Fatalf("%v %v", f, err)
	}
	for name, text := range map[string]string{
		"a list": `[1]`, "a number": `1`, "key twice": `{"` + root + `/qe": 7, "` + root + `/qe": 6}`,
		"text": `{"` + root + `/qe": "x"}`, "a fraction": `{"` + root + `/qe": 1.5}`, "null": `{"` + root + `/qe": null}`,
		"negative": `{"` + root + `/qe": -1}`, "too large": `{"` + root + `/qe": 1` + strings.Repeat("0", 60) + `}`,
		"key without a root": `{"qe": 1}`, "key of the root alone": `{"` + root + `/": 1}`, "no slash": `{"` + root + `-qe": 1}`,
		"long key": `{"` + root + `/` + strings.Repeat("a", 256) + `": 1}`,
	} {
		f := collateral.Floor{}
		if err := json.Unmarshal([]byte(text), &f); err == nil {
			t.Errorf("%s is read: %v", name, f)
		}
	}
}
