package measure_test

import (
	"crypto/sha512"
	"fmt"
	"strings"
	"testing"

	"github.com/confidential-cloud/phala/attest/eventlog"
	"github.com/confidential-cloud/phala/attest/measure"
	"github.com/confidential-cloud/phala/cvm"
)

const vmConfig = `{"os_image_hash":"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa","cpu_count":2,"memory_size":2147483648,"image":"x","tdx_attestation_variant":"container"}`

// Frozen: the chain allows images and members by these. DO NOT CHANGE.
func TestContainerVector(t *testing.T) {
	r, err := measure.Container(vmConfig)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"2cceee0d0408b04902ba1399491712d419e28f4db58f41f65d62a8f9220aa9339f077c71e3013fd9a52cf8a365ee2a42", "e99ef4bc1994c74ff16036ab3e086a027df782d3027daf735fd11a2f6f80be42fd372a8bd8fc64c815c4ddfc99d829a2", "21383e6d9ad418148c3d22718cc88127315d008c5c42437ff72b5544d4f182e7d00fee5d52d027ed2ce08d646df075dc", "dcbcf4a49181ee9d3a5eb3ca628c99856bf22e8ece32b848fdb045489debc8a1429cb044ccd624e53e2df0b9bdf6b2aa"}
	for i, got := range []cvm.Measurement{r.MRTD, r.RTMR[0], r.RTMR[1], r.RTMR[2]} {
		if got.String() != want[i] {
			t.Errorf("register %d: %s", i, got)
		}
	}
}

// DO NOT CHANGE: a container's launch digest as a simulated SEV-SNP guest. The memory is
// not in it, as it is not in a real one.
func TestContainerSNPVector(t *testing.T) {
	got, image, err := measure.ContainerSNP(vmConfig)
	if err != nil || image == (cvm.ImageHash{}) {
		t.Fatal(err)
	}
	c, err := measure.ParseVMConfig(vmConfig)
	if err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprintf("phala-container-snp:v1:cpu_count=%d;%s", c.CPUCount, c.OSImageHash)
	if want := sha512.Sum384([]byte(text)); got != want {
		t.Errorf("%s, SHA-384 of %q is %x", got, text, want)
	}
	for name, bad := range map[string]string{
		"another variant": strings.Replace(vmConfig, `"container"`, `"lite"`, 1), "no processors": strings.Replace(vmConfig, `"cpu_count":`, `"cpu_count":0`, 1), "no JSON": "x",
	} {
		if _, _, err := measure.ContainerSNP(bad); err == nil {
			t.Errorf("%s: a digest of %s", name, bad)
		}
	}
}

func TestContainerCCELReplays(t *testing.T) {
	r, err := measure.Container(vmConfig)
	if err != nil {
		t.Fatal(err)
	}
	ccel, err := measure.ContainerCCEL(vmConfig)
	if err != nil {
		t.Fatal(err)
	}
	events, err := eventlog.ParseCCEL(ccel)
	if err != nil {
		t.Fatal(err)
	}
	for i := range uint32(3) {
		if mr, ok := eventlog.ReplayBoot(events, i); !ok || mr != r.RTMR[i] {
			t.Errorf("RTMR%d", i)
		}
	}
}

// Each measured input changes a register; what is not measured changes none.
func TestContainerInputs(t *testing.T) {
	base, err := measure.Container(vmConfig)
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		old, repl string
		changes   bool
	}{
		{`"aa`, `"ab`, true}, {`"cpu_count":2`, `"cpu_count":3`, true}, {`2147483648`, `2147483649`, true}, {`"image":"x"`, `"image":"y"`, false},
	} {
		r, err := measure.Container(strings.Replace(vmConfig, tc.old, tc.repl, 1))
		if err != nil {
			t.Fatal(err)
		}
		if (r != base) != tc.changes {
			t.Errorf("%s: changes %v", tc.repl, r != base)
		}
	}
}

func TestVMConfigRefusals(t *testing.T) {
	repl := func(old, by string) string { return strings.Replace(vmConfig, old, by, 1) }
	for name, c := range map[string]string{
		"empty": "", "array": "[]", "data after": vmConfig + "{}", "no image": repl("os_image_hash", "other"), "short hash": repl(`"aa`, `"`),
		"repeated": repl(`"cpu_count":2`, `"cpu_count":2,"cpu_count":3`), "case variant": repl(`"cpu_count":2`, `"cpu_count":2,"CPU_count":3`),
		"no CPU": repl(`"cpu_count":2`, `"cpu_count":0`), "negative": repl(`"cpu_count":2`, `"cpu_count":-2`), "fraction": repl(`"cpu_count":2`, `"cpu_count":1.5`),
		"no memory": repl("2147483648", "0"), "too much": repl("2147483648", "99999999999999999999"), "other variant": repl("container", "lite"), "no variant": repl("tdx_attestation_variant", "v"),
		"zero hash": repl(strings.Repeat("a", 64), strings.Repeat("0", 64)), "huge": fmt.Sprintf(`{"x":"%s"}`, strings.Repeat("x", 300<<10)),
	} {
		if _, err := measure.Container(c); err == nil {
			t.Errorf("%s: accepted", name)
		}
		if _, err := measure.ContainerCCEL(c); err == nil {
			t.Errorf("%s: accepted for CCEL", name)
		}
	}
}

func TestZeroPolicyAdmitsNoVariant(t *testing.T) {
	for _, v := range []string{"container", "lite", ""} {
		c := strings.Replace(vmConfig, `"container"`, `"`+v+`"`, 1)
		if _, err := measure.Expected(measure.Policy{}, c, nil); cvm.CodeOf(err) != cvm.Denied {
			t.Errorf("%q: %v", v, err)
		}
	}
	if _, err := measure.Expected(measure.Policy{Variants: []string{""}}, strings.Replace(vmConfig, `"container"`, `""`, 1), nil); cvm.ReasonOf(err) != "image-unknown" {
		t.Errorf("legacy: %v", err)
	}
}

func FuzzExpected(f *testing.F) {
	f.Add(vmConfig)
	f.Add(`{"os_image_hash":"00","tdx_measurement":{"checksum_file":"","measurement":"o2d2"},"tdx_attestation_variant":"lite","memory_size":2147483648}`)
	p := measure.Policy{Variants: []string{"container", "lite"}, AnyACPI: true}
	f.Fuzz(func(t *testing.T, c string) {
		a, err := measure.Expected(p, c, nil)
		if err != nil {
			return
		}
		b, err := measure.Expected(p, c, nil)
		if err != nil || a.Registers != b.Registers {
			t.Fatal("not a function")
		}
	})
}

// A withdrawn image is refused in every variant, before anything is computed.
func TestWithdrawnImage(t *testing.T) {
	image := cvm.ImageHash{1}
	for _, variant := range []string{measure.VariantLegacy, measure.VariantLite, measure.VariantContainer} {
		p := measure.Policy{Variants: []string{variant}, AnyACPI: true, Withdrawn: []cvm.ImageHash{{2}, image}}
		config := fmt.Sprintf(`{"os_image_hash":"%s","tdx_attestation_variant":"%s"}`, image, variant)
		if _, err := measure.Expected(p, config, nil); cvm.CodeOf(err) != cvm.Denied || cvm.ReasonOf(err) != "image-withdrawn" {
			t.Errorf("%q: %v", variant, err)
		}
		p.Withdrawn = p.Withdrawn[:1]
		if _, err := measure.Expected(p, config, nil); cvm.ReasonOf(err) == "image-withdrawn" {
			t.Errorf("%q: another image: %v", variant, err)
		}
	}
}
