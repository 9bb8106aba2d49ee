package oci

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/confidential-cloud/phala/cvm"
)

// tries of one blob without worthwhile bytes; each goes on where the last one ended.
const (
	tries      = 5
	worthwhile = 64 << 10
)

// fetcher brings blobs to disk.
type fetcher struct {
	src   *source
	stall time.Duration // without a byte
	pause time.Duration // before another try; doubles
	got   func(n int64) // progress, in bytes; negative when a blob starts over
}

// download is one blob's file under way.
type download struct {
	*os.File
	b    blob
	h    hash.Hash
	have int64
}

// fetch writes the blob to path, where a part of it may be from an earlier pull.
// When it returns nil the file is complete, has the digest and is on disk.
func (f fetcher) fetch(ctx context.Context, b blob, path string) (err error) {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return cvm.Errorf(cvm.Internal, "image blob: %w", err)
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	d := &download{File: file, b: b, h: sha256.New()}
	if d.have, err = io.Copy(d.h, io.LimitReader(file, b.Size+1)); err != nil {
		return cvm.Errorf(cvm.Internal, "image blob: %w", err)
	}
	if d.have > b.Size {
		if err := d.restart(); err != nil {
			return err
		}
	}
	resumed := d.have > 0
	f.got(d.have)
	for {
		if err := f.complete(ctx, d); err != nil {
			return err
		}
		if [32]byte(d.h.Sum(nil)) == b.SHA256 {
			return d.Sync()
		}
		f.got(-d.have)
		if err := d.restart(); err != nil {
			return err
		}
		if !resumed {
			return cvm.Errorf(cvm.Denied, "the registry gave other bytes for %s", digestText(b.SHA256)).WithReason("image-digest").
				WithFix("the registry is broken or lies; use another one")
		}
		resumed = false // the kept part may have been the wrong one: once more from the start
	}
}

func (d *download) restart() error {
	d.h.Reset()
	d.have = 0
	if err := d.Truncate(0); err != nil {
		return cvm.Errorf(cvm.Internal, "image blob: %w", err)
	}
	_, err := d.Seek(0, io.SeekStart)
	return err
}

// complete fetches until all bytes are there, over broken connections.
func (f fetcher) complete(ctx context.Context, d *download) error {
	pause := f.pause
	for try := 1; d.have < d.b.Size || d.b.Size == 0 && try == 1; try++ {
		before := d.have
		err := f.once(ctx, d)
		if err == nil {
			return nil
		}
		if d.have-before >= worthwhile {
			try, pause = 0, f.pause
		}
		if cvm.CodeOf(err) != cvm.Unavailable || try >= tries || ctx.Err() != nil {
			return err
		}
		t := time.NewTimer(pause)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return ctx.Err()
		}
		pause = min(2*pause, 30*time.Second)
	}
	return nil
}

// once is one request for the missing bytes.
func (f fetcher) once(ctx context.Context, d *download) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	res, err := f.src.get(ctx, "blobs", digestText(d.b.SHA256), d.have)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	ranged := res.StatusCode == http.StatusPartialContent && strings.HasPrefix(res.Header.Get("Content-Range"), fmt.Sprintf("bytes %d-", d.have))
	if d.have > 0 && !ranged { // this registry gives whole blobs only
		f.got(-d.have)
		if err := d.restart(); err != nil {
			return err
		}
	}
	if res.StatusCode != http.StatusOK && !ranged {
		return cvm.Errorf(cvm.Unavailable, "the registry answers %s to a request for the rest of a blob", res.Status).WithReason("registry-unavailable")
	}
	watchdog := time.AfterFunc(f.stall, cancel)
	defer watchdog.Stop()
	buf := make([]byte, 256<<10)
	for {
		n, err := res.Body.Read(buf)
		watchdog.Reset(f.stall)
		if d.have+int64(n) > d.b.Size {
			return errors.Join(d.restart(), cvm.Errorf(cvm.Denied, "the registry gave more than the %d bytes of %s", d.b.Size, digestText(d.b.SHA256)).
				WithReason("image-digest").WithFix("the registry is broken or lies; use another one"))
		}
		if _, werr := d.Write(buf[:n]); werr != nil {
			return cvm.Errorf(cvm.Exhausted, "writing an image: %w", werr).WithReason("disk-full")
		}
		d.h.Write(buf[:n])
		d.have += int64(n)
		f.got(int64(n))
		switch {
		case err == io.EOF && d.have == d.b.Size:
			return nil
		case err == io.EOF:
			return cvm.Errorf(cvm.Unavailable, "%s ended after %d of %d bytes", digestText(d.b.SHA256), d.have, d.b.Size).WithReason("image-truncated").
				WithFix("pull again: it goes on where it stopped")
		case err != nil:
			return cvm.Errorf(cvm.Unavailable, "the connection broke after %d of %d bytes: %w", d.have, d.b.Size, err).WithReason("image-truncated").
				WithFix("pull again: it goes on where it stopped")
		}
	}
}
