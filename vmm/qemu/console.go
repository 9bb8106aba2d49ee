package qemu

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"time"

	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/internal/run"
	"github.com/confidential-cloud/phala/vmm/machine"
)

// followEvery is how often a follower looks for more.
const followEvery = 250 * time.Millisecond

// openConsole streams a log file; a follower ends when ended is closed.
func openConsole(ctx context.Context, path string, o machine.ConsoleOptions, ended <-chan struct{}) (io.ReadCloser, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, cvm.Errorf(cvm.NotFound, "console: %w", err)
	}
	from, err := tailOffset(f, o.Tail)
	if err == nil {
		_, err = f.Seek(from, io.SeekStart)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	if !o.Follow {
		return f, nil
	}
	pr, pw := io.Pipe()
	go func() {
		defer f.Close()
		pw.CloseWithError(follow(ctx, f, pw, ended))
	}()
	return pr, nil
}

func follow(ctx context.Context, f *os.File, w io.Writer, ended <-chan struct{}) error {
	for last := false; ; {
		if _, err := io.Copy(w, f); err != nil || last {
			return err
		}
		at, err := f.Seek(0, io.SeekCurrent)
		if err != nil {
			return err
		}
		if st, err := f.Stat(); err == nil && st.Size() < at { // it was rotated
			if _, err := f.Seek(0, io.SeekStart); err != nil {
				return err
			}
		}
		select {
		case <-ended:
			last = true // once more: what was written before the end
		default:
			if err := run.Pause(ctx, followEvery); err != nil {
				return err
			}
		}
	}
}

// tailOffset is where the last n lines begin; 0 lines are all.
func tailOffset(f *os.File, n int) (int64, error) {
	if n <= 0 {
		return 0, nil
	}
	st, err := f.Stat()
	if err != nil {
		return 0, err
	}
	at, found := st.Size(), 0
	buf := make([]byte, 32<<10)
	for at > 0 {
		size := min(at, int64(len(buf)))
		at -= size
		if _, err := f.ReadAt(buf[:size], at); err != nil && err != io.EOF {
			return 0, err
		}
		for i := size - 1; i >= 0; i-- {
			if buf[i] != '\n' || at+i == st.Size()-1 {
				continue
			}
			if found++; found == n {
				return at + i + 1, nil
			}
		}
	}
	return 0, nil
}

// tailText is the end of a text file after offset from, at most n bytes, on one line
// when it is short; "" when there is none.
func tailText(path string, from, n int64) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return ""
	}
	if from > st.Size() { // it was cut meanwhile
		from = 0
	}
	b := make([]byte, min(n, st.Size()-from))
	if _, err := f.ReadAt(b, st.Size()-int64(len(b))); err != nil && err != io.EOF {
		return ""
	}
	return strings.TrimSpace(strings.ToValidUTF8(string(bytes.ReplaceAll(b, []byte{0}, nil)), "?"))
}
