package disk

import (
	"context"
	"errors"
	"slices"

	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/keys"
)

// Reasons of refusals.
const (
	ReasonHeader      = "disk-header"  // the LUKS2 header is not one that a guest writes
	ReasonKey         = "disk-key"     // the app's key does not open it
	ReasonSwapped     = "disk-swapped" // another disk, or an older state of it
	ReasonNotWritable = "disk-not-writable"
	ReasonMissing     = "disk-missing"
	ReasonFS          = "disk-filesystem" // none that is known, or damaged
	ReasonUnsupported = "unsupported"     // storage_fs or a tool that this image has not
)

// minDisk is the smallest disk that is formatted, in bytes.
const minDisk = 256 << 20

// Config of a data disk.
type Config struct {
	Device     string // block device, e.g. /dev/vdb
	MountPoint string // an existing directory
	Name       string // device-mapper name; "" is "phala-data"
	Key        keys.Secret
	// Profile is what a new disk gets; "" is ProfileIntegrity. Also lists further
	// profiles that an existing disk may have.
	Profile Profile
	Also    []Profile
	FS      string // what a new disk gets: storage_fs; "" is FSExt4
	// Reported is the generation that ReadGeneration gave and the KMS was told: a
	// record that changed since is refused.
	Reported uint64
}

// Opened is a mounted data disk. Close it, or the next boot counts as one after a
// crash (which loses nothing).
type Opened struct {
	FS      string // the storage-fs event's payload
	Profile Profile
	// Generation is the disk's number from now on; it is higher than Config.Reported.
	Generation uint64
	Fresh      bool // it was formatted by this call

	cfg   Config
	dev   *device
	count counter
}

func (c Config) withDefaults() (Config, error) {
	if c.Key.Len() != keys.Size {
		return c, cvm.Errorf(cvm.Internal, "disk key: want %d bytes, got %d", keys.Size, c.Key.Len())
	}
	if c.Profile == "" {
		c.Profile = ProfileIntegrity
	}
	if c.FS == "" {
		c.FS = FSExt4
	}
	if c.Name == "" {
		c.Name = "phala-data"
	}
	for _, p := range append([]Profile{c.Profile}, c.Also...) {
		if p != ProfileIntegrity && p != ProfileReference {
			return c, cvm.Errorf(cvm.Internal, "data disk: profile %q", p)
		}
	}
	return c, CheckFS(c.FS)
}

func (c Config) mapped() string { return "/dev/mapper/" + c.Name }

// Open formats a disk whose first HeaderSize bytes are zero and opens any other
// whose header passes ParseHeader; one that does not is refused and left as it is.
// The header that was judged is the header that is used. The generation moves before
// anything else is written.
func Open(ctx context.Context, cfg Config) (*Opened, error) {
	c, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	dev, err := openDevice(c.Device)
	if err != nil {
		return nil, err
	}
	o := &Opened{cfg: c, dev: dev}
	if err := o.open(ctx); err != nil {
		_ = dev.Close()
		return nil, err
	}
	return o, nil
}

func (o *Opened) open(ctx context.Context) error {
	head, err := o.header(ctx)
	if err != nil {
		return err
	}
	h, err := ParseHeader(head)
	if err != nil {
		return err
	}
	if h.Profile != o.cfg.Profile && !slices.Contains(o.cfg.Also, h.Profile) {
		return refuse("profile %s is not admitted", h.Profile)
	}
	o.Profile = h.Profile
	if err := luksOpen(ctx, o.cfg.Device, o.cfg.Name, head, o.cfg.Key); err != nil {
		return err
	}
	if err = o.grown(ctx, head); err == nil {
		err = o.start(h)
	}
	if err != nil {
		return errors.Join(err, luksClose(context.WithoutCancel(ctx), o.cfg.Name))
	}
	return nil
}

// header reads the disk's header area, after formatting a new disk.
func (o *Opened) header(ctx context.Context) ([]byte, error) {
	if o.dev.size < minDisk {
		return nil, cvm.Errorf(cvm.Precondition, "data disk: %s has %d bytes, want %d or more", o.cfg.Device, o.dev.size, minDisk).WithReason(ReasonMissing)
	}
	head, err := o.dev.read(0, HeaderSize)
	if err != nil || !isNew(head) {
		return head, err
	}
	if o.cfg.Reported != 0 {
		return nil, swapped("it is empty, and generation %d was reported", o.cfg.Reported)
	}
	o.Fresh = true
	if err := o.format(ctx); err != nil {
		return nil, err
	}
	return o.dev.read(0, HeaderSize)
}

// isNew reports whether nothing was ever kept on the disk: its header area is zero,
// or says that formatting it began and did not end.
func isNew(head []byte) bool {
	slot := head[recordStart:][:recordSlot]
	return zero(head) || whole(slot[:recordSize], markerMagic) && zero(slot[8:recordSum]) && zero(slot[recordSize:])
}

// format makes header, file system and generation 0. The marker is on the disk
// first and goes last, by being overwritten with the first record: whatever a crash
// leaves between is formatted again, and holds no data yet.
func (o *Opened) format(ctx context.Context) error {
	if err := o.dev.WriteBlock(recordStart, marker()); err != nil {
		return err
	}
	head, err := luksFormat(ctx, o.cfg.Device, o.cfg.Key, o.cfg.Profile)
	if err != nil {
		return err
	}
	h, err := ParseHeader(head)
	if err != nil {
		return cvm.Errorf(cvm.Internal, "this image's cryptsetup made a header that is refused: %w", err)
	}
	// Without dm-integrity's journal, which writes everything twice: what a crash leaves
	// of a half-made file system is made again.
	var once []string
	if h.Profile == ProfileIntegrity {
		once = []string{"--integrity-no-journal"}
		if err := smallJournal(o.dev); err != nil {
			return err
		}
	}
	if err := luksOpen(ctx, o.cfg.Device, o.cfg.Name, head, o.cfg.Key, once...); err != nil {
		return err
	}
	err = o.fill(ctx, h, head)
	return errors.Join(err, luksClose(context.WithoutCancel(ctx), o.cfg.Name))
}

func (o *Opened) fill(ctx context.Context, h Header, head []byte) error {
	vol, err := openDevice(o.cfg.mapped())
	if err != nil {
		return err
	}
	defer vol.Close() //nolint:errcheck // every write has reached the device
	if err := makeFS(ctx, o.cfg.FS, o.cfg.mapped(), vol, h.Profile); err != nil {
		return err
	}
	key, err := macKeyOf(o.cfg.Key)
	if err != nil {
		return err
	}
	first := record{0, stateClosed, h.Digest}
	if err := innerSlots(vol).write(first, key); err != nil {
		return err
	}
	// The outer slot of generation 0 is the marker's: it is written last.
	if err := o.dev.WriteBlock(0, head[:recordStart]); err != nil {
		return err
	}
	return outerSlots(o.dev).write(first, key)
}

// grown maps the disk again when dm-integrity found more room than its superblock
// had said: cryptsetup maps what the superblock says, and the kernel then brings the
// superblock up to date.
func (o *Opened) grown(ctx context.Context, head []byte) error {
	if o.Profile != ProfileIntegrity {
		return nil
	}
	vol, err := openDevice(o.cfg.mapped())
	if err != nil {
		return err
	}
	mapped := uint64(vol.size) / 512 //nolint:gosec // a size
	if err := vol.Close(); err != nil {
		return err
	}
	there, err := integritySize(o.dev)
	if err != nil || there <= mapped {
		return err
	}
	if err := luksClose(ctx, o.cfg.Name); err != nil {
		return err
	}
	return luksOpen(ctx, o.cfg.Device, o.cfg.Name, head, o.cfg.Key)
}

// start judges the generation, moves it and mounts.
func (o *Opened) start(h Header) error {
	vol, err := openDevice(o.cfg.mapped())
	if err != nil {
		return err
	}
	defer vol.Close() //nolint:errcheck // every write has reached the device
	if err := o.generation(h, vol); err != nil {
		return err
	}
	if o.FS, err = fsOn(vol); err != nil {
		return err
	}
	if o.FS == "" {
		return cvm.Errorf(cvm.Unsupported, "data disk: it holds no file system that this guest mounts").WithReason(ReasonFS).
			WithFix("a disk with zfs or xfs needs an image that has it")
	}
	if err := CheckFS(o.FS); err != nil {
		return err
	}
	if err := o.count.move(stateOpen); err != nil {
		return err
	}
	o.Generation = o.count.now
	return mountFS(o.FS, o.cfg.mapped(), o.cfg.MountPoint, vol)
}

func (o *Opened) generation(h Header, vol *device) error {
	key, err := macKeyOf(o.cfg.Key)
	if err != nil {
		return err
	}
	o.count = counter{outer: outerSlots(o.dev), inner: innerSlots(vol), key: key, header: h.Digest}
	outerNow, _, _, err := o.count.outer.newest()
	if err != nil {
		return err
	}
	if outerNow.generation != o.cfg.Reported {
		return swapped("its generation was %d when it was reported to the KMS and is %d now", o.cfg.Reported, outerNow.generation)
	}
	return o.count.load(h.Profile)
}

// Close unmounts the disk and what is mounted below it, moves its generation and unmaps
// it. Who uses the mount must be ending: a disk that stays busy is an error, and the next
// boot counts as one after a crash.
func (o *Opened) Close(ctx context.Context) error {
	if err := release(ctx, o.cfg.MountPoint, o.cfg.mapped()); err != nil {
		return err
	}
	vol, err := openDevice(o.cfg.mapped())
	if err == nil {
		o.count.inner = innerSlots(vol)
		if err = o.count.move(stateClosed); err == nil {
			o.Generation = o.count.now
		}
		err = errors.Join(err, vol.Close())
	}
	return errors.Join(err, luksClose(ctx, o.cfg.Name), o.dev.Close())
}

// ReadGeneration reads what the disk says its generation is, for the evidence that
// asks for the disk's key: nothing authenticates it until Open does, which refuses a
// disk that says something else by then. A new disk, and one that was never opened by
// this guest, is of generation 0.
func ReadGeneration(path string) (uint64, error) {
	dev, err := openDevice(path)
	if err != nil {
		return 0, err
	}
	defer dev.Close() //nolint:errcheck // only read
	if dev.size < HeaderSize {
		return 0, cvm.Errorf(cvm.Precondition, "data disk: %s has %d bytes", path, dev.size).WithReason(ReasonMissing)
	}
	r, _, _, err := outerSlots(dev).newest()
	return r.generation, err
}
