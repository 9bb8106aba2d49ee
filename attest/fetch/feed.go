package fetch

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/confidential-cloud/phala/attest/refvalue"
	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/internal/run"
)

// FeedConfig says where reference values come from.
type FeedConfig struct {
	Sources   []string          // URLs (http or https) or paths of files; the newest of all that answer counts
	Keys      []string          // pinned verifier keys (signed notes), one of which must have signed
	Dir       string            // where the newest feed is kept; "": in memory, and an older one may come after a restart
	Every     time.Duration     // between two looks; 0: 10 min
	Timeout   time.Duration     // of one source; 0: 10 s
	Transport http.RoundTripper // nil: one of its own
	TLS       *tls.Config
	Clock     func() time.Time // nil: time.Now
	Log       *slog.Logger     // nil: discarded
}

// Feed keeps the newest reference values of several sources: none of them can hold
// back what another has, bring back an older version, or edit anything. It is safe
// for concurrent use.
type Feed struct {
	cfg  FeedConfig
	http *http.Client
	path string // "": memory only

	mu     sync.Mutex
	values refvalue.Values
	mark   refvalue.Mark
}

// feedFile names the kept feed by the keys that are pinned: under another pin it is
// another feed, with versions of its own.
func feedFile(keys []string) string {
	h := sha256.Sum256([]byte(strings.Join(slices.Sorted(slices.Values(keys)), "\n")))
	return "reference-values-" + hex.EncodeToString(h[:8]) + ".note"
}

// ReasonNoFeed is the reason when no values are known, or only expired ones.
const ReasonNoFeed = "reference-values-unavailable"

// NewFeed checks the config and takes in what Dir holds. It asks nobody.
func NewFeed(cfg FeedConfig) (*Feed, error) {
	if len(cfg.Sources) == 0 || len(cfg.Keys) == 0 {
		return nil, cvm.Errorf(cvm.Invalid, "reference values: name at least one source and the key that signs them")
	}
	for _, s := range cfg.Sources {
		if u, err := url.Parse(s); isURL(s) && (err != nil || u.Host == "" || u.User != nil) {
			return nil, cvm.Errorf(cvm.Invalid, "reference values: %q is not an http or https URL without a user", s)
		}
	}
	if cfg.Every == 0 {
		cfg.Every = 10 * time.Minute
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = 10 * time.Second
	}
	if cfg.Clock == nil {
		cfg.Clock = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	f := &Feed{cfg: cfg, http: httpClient(Config{Transport: cfg.Transport, TLS: cfg.TLS, Timeout: cfg.Timeout})}
	if cfg.Dir != "" {
		if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
			return nil, cvm.Errorf(cvm.Invalid, "reference values: %w", err).WithFix("name a directory that this program may write")
		}
		f.path = filepath.Join(cfg.Dir, feedFile(cfg.Keys))
	}
	if _, _, err := refvalue.Read(nil, cfg.Keys); cvm.CodeOf(err) == cvm.Invalid {
		return nil, err // the keys; an empty feed is denied
	}
	return f, f.load()
}

func isURL(s string) bool { return strings.HasPrefix(s, "http://") || strings.HasPrefix(s, "https://") }

// load takes in the kept feed, expired or not: its version is the floor.
func (f *Feed) load() error {
	if f.path == "" {
		return nil
	}
	b, err := readBounded(f.path, refvalue.MaxFeed)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		f.values, f.mark, err = refvalue.Read(b, f.cfg.Keys)
	}
	if err != nil {
		return cvm.Errorf(cvm.Precondition, "reference values in %s: %w", f.path, err).
			WithFix("restore the file; removing it forgets which version was seen")
	}
	return nil
}

// Values are the newest values that were seen, if they still hold. Code
// unavailable, reason ReasonNoFeed: there are none; nothing must be admitted then.
func (f *Feed) Values() (refvalue.Values, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	err := errors.New("none were received yet")
	if f.mark.Version != 0 {
		err = f.values.Current(f.cfg.Clock())
	}
	if err != nil {
		return refvalue.Values{}, cvm.Errorf(cvm.Unavailable, "no reference values: %w", err).
			WithReason(ReasonNoFeed).WithFix("check that a source of the reference values can be reached and has a current feed")
	}
	return f.values, nil
}

// Refresh asks every source and keeps the newest feed. The error names each source
// that gave none; it is nil if at least one did.
func (f *Feed) Refresh(ctx context.Context) error {
	var errs []error
	for _, s := range f.cfg.Sources {
		b, err := f.read(ctx, s)
		if err == nil {
			err = f.take(b)
		}
		if err != nil {
			f.cfg.Log.Warn("reference values: source failed", "source", s, "error", err)
			errs = append(errs, fmt.Errorf("%s: %w", s, err))
		}
	}
	if len(errs) < len(f.cfg.Sources) {
		return nil
	}
	return cvm.Errorf(cvm.Unavailable, "reference values: %w", errors.Join(errs...)).WithReason(ReasonNoFeed)
}

// take keeps a feed that is newer, on disk before in memory: what was acted upon
// must still be the floor after a restart.
func (f *Feed) take(b []byte) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	v, mark, err := refvalue.Open(b, f.cfg.Keys, f.mark, f.cfg.Clock())
	if err != nil || mark == f.mark {
		return err
	}
	if f.path != "" {
		if err := writeFile(f.path, b); err != nil {
			return cvm.Errorf(cvm.Internal, "keeping the reference values: %w", err)
		}
	}
	f.cfg.Log.Info("reference values", "version", v.Version, "issued", v.Issued, "expires", v.Expires)
	f.values, f.mark = v, mark
	return nil
}

func (f *Feed) read(ctx context.Context, source string) ([]byte, error) {
	if !isURL(source) {
		return readBounded(source, refvalue.MaxFeed)
	}
	ctx, cancel := context.WithTimeout(ctx, f.cfg.Timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, source, nil)
	if err != nil {
		return nil, err
	}
	res, err := f.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("the answer is %s", res.Status)
	}
	b, err := io.ReadAll(io.LimitReader(res.Body, refvalue.MaxFeed+1))
	if err == nil && len(b) > refvalue.MaxFeed {
		err = fmt.Errorf("the answer is over %d bytes", refvalue.MaxFeed)
	}
	return b, err
}

// Run refreshes until ctx ends.
func (f *Feed) Run(ctx context.Context) error {
	for {
		_ = f.Refresh(ctx) // each failure is logged
		if err := run.Pause(ctx, f.cfg.Every); err != nil {
			return err
		}
	}
}
