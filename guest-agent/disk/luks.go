package disk

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"

	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/keys"
)

// headerPath is how a child finds the header: its first extra file.
const headerPath = "/proc/self/fd/3"

// wrongKey is cryptsetup's exit code when no keyslot opens.
const wrongKey = 2

// passphrase is what opens the keyslot: the key in hex, as the reference has it.
// The key has 256 bits of its own, so stretching it adds nothing and PBKDF2 runs at
// the least number of rounds.
func passphrase(key keys.Secret) []byte {
	b := make([]byte, hex.EncodedLen(key.Len()))
	hex.Encode(b, key.Reveal())
	return b
}

// cryptsetup runs the tool with a header in memory and the passphrase on its
// standard input.
func cryptsetup(ctx context.Context, header *os.File, key keys.Secret, args ...string) error {
	pass := passphrase(key)
	defer clear(pass)
	return tool(ctx, header, pass, "cryptsetup", append(args, "--batch-mode", "--key-file", "-", "--header", headerPath)...)
}

// tool runs a program of the image. Its output is part of the error; it never
// contains what came in on stdin.
func tool(ctx context.Context, extra *os.File, stdin []byte, name string, args ...string) error {
	path, err := exec.LookPath(name)
	if err != nil {
		return cvm.Errorf(cvm.Unsupported, "data disk: this image has no %s", name).WithReason(ReasonUnsupported)
	}
	var out bytes.Buffer
	c := exec.CommandContext(ctx, path, args...) //nolint:gosec // fixed names, our own arguments
	c.Stdin, c.Stdout, c.Stderr = bytes.NewReader(stdin), &out, &out
	c.Env = []string{"LC_ALL=C", "PATH=" + os.Getenv("PATH")}
	if extra != nil {
		c.ExtraFiles = []*os.File{extra}
	}
	if err := c.Run(); err != nil {
		text := strings.Join(strings.Fields(out.String()), " ")
		return fmt.Errorf("data disk: %s %s: %w: %.500s", name, args[0], err, text)
	}
	return nil
}

// formatArgs is the command line that makes a header of a profile.
func (p Profile) formatArgs(dev string) []string {
	args := []string{"luksFormat", "--type", "luks2", "--cipher", cipher, "--key-size", "512", "--hash", "sha256",
		"--pbkdf", "pbkdf2", "--pbkdf-force-iterations", strconv.Itoa(minIterations), "--sector-size", strconv.FormatUint(p.sectorSize(), 10),
		"--offset", strconv.Itoa(HeaderSize / 512), "--luks2-metadata-size", "16k", "--luks2-keyslots-size", "8m"}
	if p == ProfileIntegrity {
		// Wiping would write the whole disk once (minutes for 20 GB) so that all of it can
		// be read. What was never written reads as an error instead, and the file systems
		// of this package read only what they have written (fs.go).
		args = append(args, "--integrity", "hmac-sha256", "--integrity-no-wipe")
	}
	return append(args, dev)
}

// luksFormat makes a new header in memory for the disk, which loses its data.
// Nothing of it is on the disk yet, but the superblock of dm-integrity.
func luksFormat(ctx context.Context, dev string, key keys.Secret, p Profile) ([]byte, error) {
	f, err := memFile("new-header")
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // memory
	if err := f.Truncate(HeaderSize); err != nil {
		return nil, fmt.Errorf("data disk: header in memory: %w", err)
	}
	if err := cryptsetup(ctx, f, key, p.formatArgs(dev)...); err != nil {
		return nil, err
	}
	b := make([]byte, HeaderSize)
	if _, err := f.ReadAt(b, 0); err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("data disk: header in memory: %w", err)
	}
	return b, nil
}

// luksOpen maps the disk's data under name, by exactly this header. More are further
// options of cryptsetup.
func luksOpen(ctx context.Context, dev, name string, header []byte, key keys.Secret, more ...string) error {
	f, err := sealedFile("header", header)
	if err != nil {
		return err
	}
	defer f.Close() //nolint:errcheck // memory
	// No keyring: the volume key must not stay behind in the session's. No workqueue
	// flags and no discards: both would come from the header, which may have no flags.
	args := append([]string{"open", "--type", "luks2", "--disable-keyring", "--disable-external-tokens"}, more...)
	err = cryptsetup(ctx, f, key, append(args, dev, name)...)
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == wrongKey {
		return cvm.Errorf(cvm.Denied, "data disk: this app's key does not open it").WithReason(ReasonKey).
			WithFix("the disk belongs to another app or instance, or was made under another KMS root: give the instance its own disk")
	}
	return err
}

func luksClose(ctx context.Context, name string) error {
	return tool(ctx, nil, nil, "cryptsetup", "close", name)
}

// integritySize reads how much data dm-integrity provides, in sectors of 512 bytes,
// from its superblock, which nothing authenticates: its form is checked, since the
// kernel reads it next, and a lie ends in read errors.
func integritySize(dev *device) (uint64, error) {
	b, err := dev.read(HeaderSize, recordSlot)
	if err != nil {
		return 0, err
	}
	const known = 0x8 | 0x10 // layout fixes; not: journal MAC, recalculating, bitmap, inline
	le := binary.LittleEndian
	switch {
	case string(b[:8]) != "integrt\x00" || b[8] == 0 || b[8] > 6:
		return 0, refuse("its dm-integrity superblock is not one")
	case le.Uint16(b[10:]) != macKey || b[28] != 3:
		return 0, refuse("its dm-integrity superblock has tags of %d bytes for blocks of 2^%d sectors", le.Uint16(b[10:]), b[28])
	case le.Uint32(b[24:])&^known != 0:
		return 0, refuse("its dm-integrity superblock has flags %#x", le.Uint32(b[24:]))
	}
	return le.Uint64(b[16:]), nil
}

// journalSections bounds dm-integrity's journal to 8 MiB: a section of this profile's
// blocks and tags has 132 KiB. The kernel keeps the journal in memory, whole, and
// would give a disk of 8 GiB and more one of 64 MiB.
const journalSections = 62

// smallJournal makes the journal of a disk smaller that was formatted just now and
// is not mapped. The room this gives is found at the next mapping, as on a disk that
// has grown.
func smallJournal(dev *device) error {
	if _, err := integritySize(dev); err != nil {
		return err
	}
	b, err := dev.read(HeaderSize, recordSlot)
	if err != nil {
		return err
	}
	sections := b[12:16]
	if binary.LittleEndian.Uint32(sections) <= journalSections {
		return nil
	}
	binary.LittleEndian.PutUint32(sections, journalSections)
	return dev.WriteBlock(HeaderSize, b)
}
