package disk

// Profile is a kind of data disk.
type Profile string

// The profiles.
const (
	// ProfileReference is the reference's disk: AES-XTS, sectors of 512 bytes, no
	// integrity. A host that flips a bit garbles 16 bytes and is not noticed.
	ProfileReference Profile = "reference"
	// ProfileIntegrity is ours: AES-XTS, and HMAC-SHA256 over each sector of 4096
	// bytes kept by dm-integrity, so that a changed sector reads as an error.
	//
	// Why this pair: AES-GCM with random nonces of 96 bits is not safe for as many
	// sectors as a disk writes in its life. AEGIS-128 would be faster, but its key has
	// 128 bits and cryptsetup still calls it experimental. HMAC over XTS is what
	// cryptsetup documents for LUKS2, its modules are in every Debian kernel, and
	// processors with TDX have instructions for both halves.
	ProfileIntegrity Profile = "integrity"
)

// cipher of both profiles, of their data and of their keyslot.
const cipher = "aes-xts-plain64"

// Limits of what a header may say.
const (
	minIterations = 1000    // PBKDF2 rounds: the least that cryptsetup writes
	maxIterations = 1 << 26 // a minute: a host must not stop a boot for a year
	stripes       = 4000    // of the anti-forensic splitter
	xtsKey        = 64      // bytes
	macKey        = 32      // bytes
	// recordStart is where the generation record begins; no keyslot may reach it.
	recordStart = HeaderSize - 2*recordSlot
)

func (p Profile) keySize() uint64 {
	if p == ProfileIntegrity {
		return xtsKey + macKey
	}
	return xtsKey
}

func (p Profile) sectorSize() uint64 {
	if p == ProfileIntegrity {
		return 4096
	}
	return 512
}

// check runs rules until one refuses.
func check(rules ...func() error) error {
	for _, r := range rules {
		if err := r(); err != nil {
			return err
		}
	}
	return nil
}

// checkJSON applies the rules of dstack-core K and finds the profile: a header of
// profile integrity differs in the segment's integrity, its sector size and the
// volume key's size, all three together.
func checkJSON(text []byte, hdrSize uint64) (p Profile, err error) {
	root, err := parseJSON(text)
	if err != nil {
		return "", err
	}
	top, err := root.members("keyslots", "tokens", "segments", "digests", "config")
	if err != nil {
		return "", err
	}
	keyslots, tokens, segments, digests, config := top[0], top[1], top[2], top[3], top[4]
	err = check(
		func() error { _, err := tokens.members(); return err },
		func() error { p, err = checkSegment(segments); return err },
		func() error { return checkKeyslot(keyslots, p, hdrSize) },
		func() error { return checkDigest(digests) },
		func() error { return checkConfig(config, hdrSize) },
	)
	return p, err
}

func checkSegment(segments node) (p Profile, err error) {
	s, err := segments.only()
	if err != nil {
		return "", err
	}
	names := []string{"type", "offset", "size", "iv_tweak", "encryption", "sector_size"}
	p = ProfileReference
	if m, ok := s.v.(map[string]any); ok && m["integrity"] != nil {
		p, names = ProfileIntegrity, append(names, "integrity")
	}
	f, err := s.members(names...)
	if err != nil {
		return "", err
	}
	return p, check(
		func() error { return f[0].is("crypt") },
		func() error { return f[1].is("16777216") },
		func() error { return f[2].is("dynamic") },
		func() error { return f[3].is("0") },
		func() error { return f[4].is(cipher) },
		func() error { return f[5].isNumber(p.sectorSize()) },
		func() error {
			if p != ProfileIntegrity {
				return nil
			}
			return checkIntegrity(f[6])
		},
	)
}

func checkIntegrity(n node) error {
	f, err := n.members("type", "journal_encryption", "journal_integrity")
	if err != nil {
		return err
	}
	return check(
		func() error { return f[0].is("hmac(sha256)") },
		func() error { return f[1].is("none") },
		func() error { return f[2].is("none") },
	)
}

func checkKeyslot(keyslots node, p Profile, hdrSize uint64) error {
	k, err := keyslots.only()
	if err != nil {
		return err
	}
	f, err := k.members("type", "key_size", "af", "area", "kdf")
	if err != nil {
		return err
	}
	return check(
		func() error { return f[0].is("luks2") },
		func() error { return f[1].isNumber(p.keySize()) },
		func() error { return checkAF(f[2]) },
		func() error { return checkArea(f[3], p, hdrSize) },
		func() error { return checkKDF(f[4]) },
	)
}

func checkAF(n node) error {
	f, err := n.members("type", "stripes", "hash")
	if err != nil {
		return err
	}
	return check(
		func() error { return f[0].is("luks1") },
		func() error { return f[1].isNumber(stripes) },
		func() error { return f[2].is("sha256") },
	)
}

func checkArea(n node, p Profile, hdrSize uint64) error {
	f, err := n.members("type", "offset", "size", "encryption", "key_size")
	if err != nil {
		return err
	}
	return check(
		func() error { return f[0].is("raw") },
		func() error {
			off, err := f[1].size()
			if err != nil {
				return err
			}
			size, err := f[2].size()
			if err != nil {
				return err
			}
			// Both are below 2^63, so the sum does not wrap.
			if off < 2*hdrSize || off%4096 != 0 || off+size > recordStart {
				return refuse("%s: %d bytes at %d lie outside the keyslot area, %d to %d", n.path, size, off, 2*hdrSize, recordStart)
			}
			if size < p.keySize()*stripes {
				return refuse("%s.size is %d, too small for a key", n.path, size)
			}
			return nil
		},
		func() error { return f[3].is(cipher) },
		func() error { return f[4].isNumber(xtsKey) },
	)
}

func checkKDF(n node) error {
	f, err := n.members("type", "hash", "iterations", "salt")
	if err != nil {
		return err
	}
	return check(
		func() error { return f[0].is("pbkdf2") },
		func() error { return f[1].is("sha256") },
		func() error { return iterations(f[2]) },
		func() error { return f[3].base64Of(32) },
	)
}

func iterations(n node) error {
	v, err := n.number()
	if err == nil && (v < minIterations || v > maxIterations) {
		err = refuse("%s is %d, want %d to %d", n.path, v, minIterations, maxIterations)
	}
	return err
}

func checkDigest(digests node) error {
	d, err := digests.only()
	if err != nil {
		return err
	}
	f, err := d.members("type", "keyslots", "segments", "hash", "iterations", "salt", "digest")
	if err != nil {
		return err
	}
	zeroOnly := func(n node) error {
		if l, ok := n.v.([]any); !ok || len(l) != 1 || l[0] != "0" {
			return refuse(`%s is %s, want ["0"]`, n.path, n.short())
		}
		return nil
	}
	return check(
		func() error { return f[0].is("pbkdf2") },
		func() error { return zeroOnly(f[1]) },
		func() error { return zeroOnly(f[2]) },
		func() error { return f[3].is("sha256") },
		func() error { return iterations(f[4]) },
		func() error { return f[5].base64Of(32) },
		func() error { return f[6].base64Of(32) },
	)
}

// checkConfig refuses flags and requirements by naming no such members.
func checkConfig(n node, hdrSize uint64) error {
	f, err := n.members("json_size", "keyslots_size")
	if err != nil {
		return err
	}
	v, err := f[0].size()
	if err != nil {
		return err
	}
	if v != hdrSize-binarySize {
		return refuse("%s is %d, want %d", f[0].path, v, hdrSize-binarySize)
	}
	if v, err = f[1].size(); err != nil {
		return err
	}
	if v > HeaderSize-2*hdrSize || v%4096 != 0 {
		return refuse("%s is %d", f[1].path, v)
	}
	return nil
}
