package fetch

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/confidential-cloud/phala/attest/collateral"
	"github.com/confidential-cloud/phala/cvm"
)

// disk is a directory with one file per statement (docs/spec/collateral.md). What
// is read from it is judged like an answer of a service; a file that is damaged is
// as good as none. A nil disk holds nothing.
type disk struct {
	dir     string
	entries int
}

const (
	fileSuffix = ".statement"
	fileFormat = "phala collateral statement 1"
	maxHead    = 4 << 10
	maxFile    = maxHead + collateral.MaxChain + collateral.MaxBody
)

// openDisk makes nothing yet: the directory comes with the first file.
func openDisk(dir string, entries int) (*disk, error) {
	if st, err := os.Stat(dir); err == nil && !st.IsDir() {
		return nil, cvm.Errorf(cvm.Invalid, "collateral cache: %s is no directory", dir).WithFix("name a directory that this program may write")
	}
	return &disk{dir: dir, entries: entries}, nil
}

// head is the first line of a file, in JSON.
type head struct {
	Format  string    `json:"format"`
	Key     string    `json:"key"`
	From    string    `json:"from"`
	Fetched time.Time `json:"fetched"`
	Chain   int       `json:"chain"` // bytes of it after the line
	Body    int       `json:"body"`  // bytes after the chain
	SHA256  string    `json:"sha256"`
}

func sum(chain, body []byte) string {
	h := sha256.New()
	h.Write(chain)
	h.Write(body)
	return hex.EncodeToString(h.Sum(nil))
}

func (p *part) encode() ([]byte, error) {
	b, err := json.Marshal(head{fileFormat, p.key, p.from, p.fetched.UTC(), len(p.chain), len(p.body), sum(p.chain, p.body)})
	if err != nil {
		return nil, err
	}
	return slices.Concat(b, []byte{'\n'}, p.chain, p.body), nil
}

// parsePart reads a file: exactly what encode writes.
func parsePart(b []byte) (*part, error) {
	line, _, ok := bytes.Cut(b[:min(len(b), maxHead)], []byte{'\n'})
	if !ok || len(b) > maxFile {
		return nil, errors.New("no header line, or too long")
	}
	rest := b[len(line)+1 : len(b) : len(b)]
	var h head
	if err := json.Unmarshal(line, &h); err != nil {
		return nil, err
	}
	if h.Format != fileFormat || h.Chain < 0 || h.Body < 0 || h.Chain > collateral.MaxChain || h.Body > collateral.MaxBody || h.Chain+h.Body != len(rest) {
		return nil, fmt.Errorf("format %.40q with %d and %d bytes of %d", h.Format, h.Chain, h.Body, len(rest))
	}
	p := &part{key: h.Key, from: h.From, fetched: h.Fetched, chain: rest[:h.Chain], body: rest[h.Chain:]}
	if sum(p.chain, p.body) != h.SHA256 {
		return nil, errors.New("the checksum does not match")
	}
	again, err := p.encode()
	if err != nil || !bytes.Equal(again, b) {
		return nil, errors.New("not in canonical form")
	}
	return p, nil
}

func (d *disk) path(key string) string {
	h := sha256.Sum256([]byte(key))
	return filepath.Join(d.dir, hex.EncodeToString(h[:16])+fileSuffix)
}

// read returns a statement, or nil.
func (d *disk) read(key string) *part {
	if d == nil {
		return nil
	}
	b, err := readBounded(d.path(key), maxFile)
	if err != nil {
		return nil
	}
	p, err := parsePart(b)
	if err != nil || p.key != key {
		return nil
	}
	return p
}

func readBounded(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() {
		return nil, errors.Join(err, fmt.Errorf("%s is not a regular file", path))
	}
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = fmt.Errorf("%s is over %d bytes", path, limit)
	}
	return b, err
}

func (d *disk) write(p *part) error {
	if d == nil {
		return nil
	}
	b, err := p.encode()
	if err != nil {
		return err
	}
	return errors.Join(writeFile(d.path(p.key), b), d.trim())
}

type aged struct {
	path string
	at   time.Time
}

// trim removes the oldest files beyond the limit, and what writers that died left.
func (d *disk) trim() error {
	all, err := os.ReadDir(d.dir)
	if err != nil {
		return err
	}
	var files []aged
	for _, e := range all {
		st, err := e.Info()
		if err != nil {
			continue // gone meanwhile
		}
		switch path := filepath.Join(d.dir, e.Name()); {
		case strings.HasSuffix(e.Name(), fileSuffix):
			files = append(files, aged{path, st.ModTime()})
		case strings.HasPrefix(e.Name(), ".new-") && time.Since(st.ModTime()) > time.Hour:
			_ = os.Remove(path)
		}
	}
	slices.SortFunc(files, func(a, b aged) int { return a.at.Compare(b.at) })
	for ; len(files) > d.entries; files = files[1:] {
		_ = os.Remove(files[0].path)
	}
	return nil
}

func (d *disk) clear() {
	if d == nil {
		return
	}
	files, err := filepath.Glob(filepath.Join(d.dir, "*"+fileSuffix))
	if err != nil {
		return // the pattern is ours
	}
	for _, f := range files {
		_ = os.Remove(f)
	}
}
