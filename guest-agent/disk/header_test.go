package disk

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/confidential-cloud/phala/cvm"
)

// realHeader is a header of the real cryptsetup: made here for profile reference,
// recorded on the test machine (TestMachineRecord) for profile integrity, whose
// formatting needs device-mapper.
func realHeader(t testing.TB, p Profile) []byte {
	t.Helper()
	if p == ProfileReference {
		return formatted(t)
	}
	f, err := os.Open("testdata/integrity.header.gz")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(io.LimitReader(z, HeaderSize))
	if err != nil || len(b) > HeaderSize {
		t.Fatalf("%d bytes: %v", len(b), err)
	}
	return append(b, make([]byte, HeaderSize-len(b))...)
}

func formatted(t testing.TB, more ...string) []byte {
	t.Helper()
	if _, err := exec.LookPath("cryptsetup"); err != nil {
		t.Skipf("SKIPPED: %v", err)
	}
	path := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, HeaderSize+1<<20); err != nil {
		t.Fatal(err)
	}
	args := append(ProfileReference.formatArgs(path), "--batch-mode", "--key-file", "-")
	if err := tool(context.Background(), nil, passphrase(testKey(7)), "cryptsetup", append(args, more...)...); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b[:HeaderSize]
}

func TestRealHeaders(t *testing.T) {
	for _, p := range []Profile{ProfileReference, ProfileIntegrity} {
		h, err := ParseHeader(realHeader(t, p))
		if err != nil || h.Profile != p || len(h.UUID) != 36 {
			t.Errorf("%s: %+v %v", p, h, err)
		}
	}
	// What a plain luksFormat of the reference writes: keyslot area up to the data.
	if h, err := ParseHeader(formatted(t, "--luks2-keyslots-size", "16744448")); err != nil || h.Profile != ProfileReference {
		t.Errorf("%+v %v", h, err)
	}
}

// The real tool makes other headers when it is asked to: each is refused.
func TestRealHeadersRefused(t *testing.T) {
	for want, more := range map[string][]string{
		"segments.0.encryption":   {"--cipher", "aes-cbc-essiv:sha256", "--key-size", "256"},
		"keyslots.0.key_size":     {"--cipher", cipher, "--key-size", "256"},
		"it has a label":          {"--label", "x"},
		"it has a subsystem":      {"--subsystem", "x"},
		"keyslots.0.kdf":          {"--pbkdf", "argon2id", "--pbkdf-force-iterations", "4", "--pbkdf-memory", "32"},
		"keyslots.0.af.hash":      {"--hash", "sha512"},
		"segments.0.sector_size":  {"--sector-size", "4096"},
		"segments.0.offset":       {"--offset", "34816"},
		"keyslots.0.area.encrypt": {"--keyslot-cipher", "aes-cbc-plain64", "--keyslot-key-size", "256"},
	} {
		_, err := ParseHeader(formatted(t, more...))
		if cvm.ReasonOf(err) != ReasonHeader || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", strings.Join(more, " "), err)
		}
	}
}

// edit changes both copies by the same function and fixes their checksums.
func edit(b []byte, change func(copy []byte, index int)) []byte {
	b = bytes.Clone(b)
	size := binary.BigEndian.Uint64(b[atHdrSize:])
	for i := range 2 {
		c := b[uint64(i)*size:][:size]
		change(c, i)
		resum(c)
	}
	return b
}

func resum(c []byte) {
	clear(c[atCsum:atPadding2])
	s := sha256.Sum256(c)
	copy(c[atCsum:], s[:])
}

// editJSON replaces text in the JSON area of both copies.
func editJSON(t *testing.T, b []byte, old, repl string) []byte {
	return edit(b, func(c []byte, _ int) {
		area := c[binarySize:]
		text := string(area[:bytes.IndexByte(area, 0)])
		if !strings.Contains(text, old) {
			t.Fatalf("no %s in %s", old, text)
		}
		clear(area)
		copy(area, strings.Replace(text, old, repl, 1))
	})
}

const slot = `"keyslots":{"0":{`

func TestHeaderAttacksJSON(t *testing.T) {
	good := map[Profile][]byte{ProfileReference: realHeader(t, ProfileReference), ProfileIntegrity: realHeader(t, ProfileIntegrity)}
	for _, tc := range []struct {
		name, old, repl, want string
		p                     Profile // "": both
	}{
		{"null cipher", `"encryption":"aes-xts-plain64","sector_size"`, `"encryption":"cipher_null-ecb","sector_size"`, "segments.0.encryption", ""},
		{"null cipher of the keyslot", `"encryption":"aes-xts-plain64","key_size"`, `"encryption":"cipher_null-ecb","key_size"`, "keyslots.0.area.encryption", ""},
		{"other cipher", `"encryption":"aes-xts-plain64","sector_size"`, `"encryption":"aes-ecb","sector_size"`, "segments.0.encryption", ""},
		{"capi cipher", `"encryption":"aes-xts-plain64","sector_size"`, `"encryption":"capi:xts(aes)-plain64","sector_size"`, "segments.0.encryption", ""},
		{"second keyslot", slot, `"keyslots":{"1":{},"0":{`, "2 keyslots, want 1", ""},
		{"keyslot of another number", slot, `"keyslots":{"1":{`, "keyslots.1 is not expected", ""},
		{"no keyslot", `"keyslots":{`, `"keyslots":{},"keyslots_":{`, "keyslots_ is not expected", ""},
		{"token", `"tokens":{}`, `"tokens":{"0":{"type":"x","keyslots":[]}}`, "tokens.0 is not expected", ""},
		{"second segment", `"segments":{`, `"segments":{"1":{"type":"linear","offset":"0","size":"512"},`, "2 segments, want 1", ""},
		{"linear segment", `"type":"crypt"`, `"type":"linear"`, "segments.0.type", ""},
		{"second digest", `"digests":{`, `"digests":{"1":{},`, "2 digests, want 1", ""},
		{"digest of another segment", `"segments":["0"]`, `"segments":["1"]`, "digests.0.segments", ""},
		{"digest of no segment", `"segments":["0"]`, `"segments":[]`, "digests.0.segments", ""},
		{"digest of two keyslots", `"keyslots":["0"]`, `"keyslots":["0","1"]`, "digests.0.keyslots", ""},
		{"digest by another hash", `"segments":["0"],"hash":"sha256"`, `"segments":["0"],"hash":"crc32"`, "digests.0.hash", ""},
		{"requirements", `"config":{`, `"config":{"requirements":["online-reencrypt"],`, "config.requirements is not expected", ""},
		{"flags", `"config":{`, `"config":{"flags":["allow-discards"],`, "config.flags is not expected", ""},
		{"segment flags", `"type":"crypt"`, `"type":"crypt","flags":["backup-final"]`, "segments.0.flags is not expected", ""},
		{"priority", `"type":"luks2"`, `"type":"luks2","priority":0`, "keyslots.0.priority is not expected", ""},
		{"reencrypt keyslot", `"type":"luks2"`, `"type":"reencrypt"`, "keyslots.0.type", ""},
		{"other offset", `"offset":"16777216"`, `"offset":"16781312"`, "segments.0.offset", ""},
		{"offset as a number", `"offset":"16777216"`, `"offset":16777216`, "segments.0.offset", ""},
		{"fixed size", `"size":"dynamic"`, `"size":"4096"`, "segments.0.size", ""},
		{"tweak", `"iv_tweak":"0"`, `"iv_tweak":"8"`, "segments.0.iv_tweak", ""},
		{"tweak spelled otherwise", `"iv_tweak":"0"`, `"iv_tweak":"00"`, "segments.0.iv_tweak", ""},
		{"sector size", `"sector_size":512`, `"sector_size":4096`, "segments.0.sector_size", ProfileReference},
		{"sector size", `"sector_size":4096`, `"sector_size":512`, "segments.0.sector_size", ProfileIntegrity},
		{"sector size as a fraction", `"sector_size":`, `"sector_size":0.`, "segments.0.sector_size", ""},
		{"integrity added", `"sector_size":512`, `"sector_size":4096,"integrity":{"type":"hmac(sha256)","journal_encryption":"none","journal_integrity":"none"}`, "keyslots.0.key_size", ProfileReference},
		{"integrity is null", `"sector_size":512`, `"sector_size":512,"integrity":null`, "segments.0.integrity is not expected", ProfileReference},
		{"integrity removed", `"integrity":{"type":"hmac(sha256)","journal_encryption":"none","journal_integrity":"none"}`, `"x":1`, "segments.0.x is not expected", ProfileIntegrity},
		{"integrity without a key", `"hmac(sha256)"`, `"crc32c"`, "segments.0.integrity.type", ProfileIntegrity},
		{"journal encrypted", `"journal_encryption":"none"`, `"journal_encryption":"x"`, "segments.0.integrity.journal_encryption", ProfileIntegrity},
		{"key of another size", `"type":"luks2","key_size":64`, `"type":"luks2","key_size":32`, "keyslots.0.key_size", ProfileReference},
		{"key without its MAC half", `"type":"luks2","key_size":96`, `"type":"luks2","key_size":64`, "keyslots.0.key_size", ProfileIntegrity},
		{"area in the header", `"offset":"32768"`, `"offset":"16384"`, "keyslots.0.area", ""},
		{"area over the data", `"offset":"32768"`, `"offset":"16760832"`, "keyslots.0.area", ""},
		{"area of an odd offset", `"offset":"32768"`, `"offset":"32769"`, "keyslots.0.area", ""},
		{"area that wraps", `"offset":"32768"`, `"offset":"18446744073709551615"`, "keyslots.0.area.offset", ""},
		{"area that wraps signed", `"offset":"32768"`, `"offset":"9223372036854771712"`, "keyslots.0.area", ""},
		{"negative area", `"offset":"32768"`, `"offset":"-32768"`, "keyslots.0.area.offset", ""},
		{"area with a plus", `"offset":"32768"`, `"offset":"+32768"`, "keyslots.0.area.offset", ""},
		{"area with a leading zero", `"offset":"32768"`, `"offset":"032768"`, "keyslots.0.area.offset", ""},
		{"area in hex", `"offset":"32768"`, `"offset":"0x8000"`, "keyslots.0.area.offset", ""},
		{"area too small", `"size":"258048"`, `"size":"4096"`, "keyslots.0.area.size", ProfileReference},
		{"stripes", `"stripes":4000`, `"stripes":1`, "keyslots.0.af.stripes", ""},
		{"weak splitter hash", `"stripes":4000,"hash":"sha256"`, `"stripes":4000,"hash":"md5"`, "keyslots.0.af.hash", ""},
		{"argon2", `"kdf":{"type":"pbkdf2"`, `"kdf":{"type":"argon2id"`, "keyslots.0.kdf.type", ""},
		{"argon2 memory", `"kdf":{`, `"kdf":{"memory":4194304,`, "keyslots.0.kdf.memory is not expected", ""},
		{"another KDF hash", `"type":"pbkdf2","hash":"sha256"`, `"type":"pbkdf2","hash":"sha1"`, "keyslots.0.kdf.hash", ""},
		{"endless KDF", `"iterations":1000`, `"iterations":4294967295`, "keyslots.0.kdf.iterations", ""},
		{"KDF of a huge number", `"iterations":1000`, `"iterations":99999999999999999999`, "keyslots.0.kdf.iterations", ""},
		{"KDF in exponents", `"iterations":1000`, `"iterations":1e3`, "keyslots.0.kdf.iterations", ""},
		{"one KDF round", `"iterations":1000`, `"iterations":1`, "keyslots.0.kdf.iterations", ""},
		{"no salt", `"salt":"`, `"salt":"","x":"`, "x is not expected", ""},
		{"json_size", `"json_size":"12288"`, `"json_size":"4096"`, "config.json_size", ""},
		{"keyslots_size", `"keyslots_size":"`, `"keyslots_size":"9`, "config.keyslots_size", ""},
		{"member twice", `"type":"crypt"`, `"type":"crypt","encryption":"cipher_null-ecb"`, "segments.0.encryption appears twice", ""},
		{"object twice", `"tokens":{}`, `"tokens":{},"segments":{}`, "segments appears twice", ""},
		{"member in another case", `"type":"crypt"`, `"type":"crypt","Encryption":"cipher_null-ecb"`, "segments.0.Encryption is not expected", ""},
		{"escaped member", `"type":"crypt"`, `"type":"crypt","encryptio\u006e":"cipher_null-ecb"`, "an escape", ""},
		{"NUL in a text", `"aes-xts-plain64","sector_size"`, `"aes-xts-plain64\u0000x","sector_size"`, "an escape", ""},
		{"bytes of no text", `"crypt"`, "\"crypt\xff\"", "byte 0xff", ""},
		{"deep nesting", `"tokens":{}`, `"tokens":` + strings.Repeat("[", 100) + strings.Repeat("]", 100), "nested deeper", ""},
		{"array of tokens", `"tokens":{}`, `"tokens":[]`, "tokens is not an object", ""},
		{"unknown part", `"tokens":{}`, `"tokens":{},"extra":{}`, "extra is not expected", ""},
		{"missing part", `"tokens":{},`, ``, "tokens is missing", ""},
		{"cut short", `"keyslots_size"`, "", "JSON", ""},
		{"data behind", `"tokens":{},`, `"tokens":{}}{`, "behind the object", ""},
	} {
		for _, p := range []Profile{ProfileReference, ProfileIntegrity} {
			if tc.p != "" && tc.p != p {
				continue
			}
			_, err := ParseHeader(editJSON(t, good[p], tc.old, tc.repl))
			if cvm.ReasonOf(err) != ReasonHeader || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("%s (%s): want %q, got %v", tc.name, p, tc.want, err)
			}
		}
	}
}

func TestHeaderAttacksBinary(t *testing.T) {
	good := realHeader(t, ProfileIntegrity)
	size := int(binary.BigEndian.Uint64(good[atHdrSize:])) //nolint:gosec // 16384
	put := func(at int, v ...byte) func([]byte, int) { return func(c []byte, _ int) { copy(c[at:], v) } }
	u64 := func(at int, v uint64) func([]byte, int) {
		return func(c []byte, _ int) { binary.BigEndian.PutUint64(c[at:], v) }
	}
	first := func(f func([]byte, int)) func([]byte, int) {
		return func(c []byte, i int) {
			if i == 0 {
				f(c, i)
			}
		}
	}
	for _, tc := range []struct {
		name   string
		change func([]byte, int)
		want   string
	}{
		{"no magic", put(0, 'X'), "no LUKS magic"},
		{"magic of the second copy in the first", first(put(0, []byte("SKUL\xba\xbe")...)), "first copy: no LUKS magic"},
		{"LUKS1", put(atVersion, 0, 1), "version 1"},
		{"version 3", put(atVersion, 0, 3), "version 3"},
		{"label", put(atLabel, 'x'), "label"},
		{"label behind a NUL", put(atLabel+5, 'x'), "label"},
		{"subsystem", put(atSubsystem, 'x'), "subsystem"},
		{"other checksum", put(atCsumAlg, []byte("sha512")...), "checksum algorithm"},
		{"checksum with a tail", put(atCsumAlg+8, 'x'), "checksum algorithm"},
		{"no UUID", put(atUUID, 0), "UUID"},
		{"UUID with a tail", put(atUUID+37, 'x'), "UUID"},
		{"UUID of a path", put(atUUID, []byte("../")...), "UUID"},
		{"padding", put(atPadding, 1), "padding"},
		{"padding to 4096", put(atPadding2+3000, 1), "padding"},
		{"hdr_size 0", u64(atHdrSize, 0), "hdr_size"},
		{"hdr_size 512", u64(atHdrSize, 512), "hdr_size"},
		{"hdr_size of one binary header", u64(atHdrSize, 4096), "hdr_size"},
		{"hdr_size of all", u64(atHdrSize, HeaderSize), "hdr_size"},
		{"hdr_size that wraps", u64(atHdrSize, 1<<63+16384), "hdr_size"},
		{"hdr_size of the largest number", u64(atHdrSize, 1<<64-1), "hdr_size"},
		{"odd hdr_size", u64(atHdrSize, 16385), "hdr_size"},
		{"hdr_offset", u64(atHdrOffset, 4096), "hdr_offset"},
		{"another age of one copy", first(u64(atSeqID, 99)), "different ages"},
		{"another UUID in one copy", first(put(atUUID, '0', '0', '0', '0')), "different ages"},
		{"another JSON in one copy", first(func(c []byte, _ int) {
			i := bytes.Index(c, []byte(`"iterations":1000`))
			copy(c[i:], `"iterations":1001`)
		}), "different JSON"},
		{"bytes behind the JSON", put(size-1, 'x'), "behind the JSON"},
		{"JSON without an end", func(c []byte, _ int) {
			for i := binarySize; i < len(c); i++ {
				if c[i] == 0 {
					c[i] = ' '
				}
			}
		}, "JSON text of more than"},
	} {
		_, err := ParseHeader(edit(good, tc.change))
		if cvm.ReasonOf(err) != ReasonHeader || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: want %q, got %v", tc.name, tc.want, err)
		}
	}
	for i, name := range []string{"first copy", "second copy"} {
		b := bytes.Clone(good)
		b[i*size+size-200] ^= 1 // in the JSON area's padding
		if _, err := ParseHeader(b); err == nil || !strings.Contains(err.Error(), name+": wrong checksum") {
			t.Errorf("%s changed: %v", name, err)
		}
		b = bytes.Clone(good)
		b[i*size+atCsum+40] = 1
		if _, err := ParseHeader(b); err == nil || !strings.Contains(err.Error(), name+": wrong checksum") {
			t.Errorf("%s: bytes behind the checksum: %v", name, err)
		}
	}
	for _, n := range []int{0, 4096, HeaderSize - 1, HeaderSize + 1} {
		if _, err := ParseHeader(append(good, 0)[:n]); err == nil {
			t.Errorf("%d bytes: accepted", n)
		}
	}
}

// A JSON area of the largest size that cryptsetup knows, full of members, is refused
// in bounded time.
func TestHeaderHugeJSON(t *testing.T) {
	const size = 4 << 20
	b := make([]byte, HeaderSize)
	good := realHeader(t, ProfileIntegrity)
	for i, magic := range []string{"LUKS\xba\xbe", "SKUL\xba\xbe"} {
		c := b[i*size:][:size]
		copy(c, good[:binarySize])
		copy(c, magic)
		binary.BigEndian.PutUint64(c[atHdrSize:], size)
		binary.BigEndian.PutUint64(c[atHdrOffset:], uint64(i*size)) //nolint:gosec // small
		copy(c[binarySize:], `{"tokens":{`+strings.Repeat(`"a":{},`, 500000))
		resum(c)
	}
	if _, err := ParseHeader(b); err == nil || !strings.Contains(err.Error(), "JSON text of more than") {
		t.Errorf("%v", err)
	}
}

// FuzzParseHeader: what is accepted is one of the two headers that this guest knows,
// whatever the bytes.
func FuzzParseHeader(f *testing.F) {
	good := realHeader(f, ProfileIntegrity)
	area := good[binarySize:16384]
	f.Add(area[:bytes.IndexByte(area, 0)])
	f.Add([]byte(`{"keyslots":{},"tokens":{},"segments":{},"digests":{},"config":{}}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		if len(text) >= 12288 {
			return
		}
		b := edit(good, func(c []byte, _ int) {
			clear(c[binarySize:])
			copy(c[binarySize:], text)
		})
		h, err := ParseHeader(b)
		if err != nil {
			if cvm.ReasonOf(err) != ReasonHeader {
				t.Fatalf("no reason: %v", err)
			}
			return
		}
		for _, want := range []string{`"aes-xts-plain64"`, `"16777216"`, `"luks2"`, `"pbkdf2"`} {
			if !bytes.Contains(text, []byte(want)) {
				t.Fatalf("%s accepted without %s: %s", h.Profile, want, text)
			}
		}
		if bytes.Contains(text, []byte("null")) || (h.Profile == ProfileIntegrity) != bytes.Contains(text, []byte("hmac(sha256)")) {
			t.Fatalf("%s: %s", h.Profile, text)
		}
	})
}
