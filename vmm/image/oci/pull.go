package oci

import (
	"context"
	"encoding/hex"
	"errors"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/vmm/image"
	"github.com/confidential-cloud/phala/vmm/vmmapi"
)

// Config of a Puller. Zero values are the defaults.
type Config struct {
	Dir   string // of images
	Keys  []Key  // if there are any, an image must be signed by one of them
	Login Login
	// MaxBytes bounds one image, packed and unpacked (8 GiB); KeepFree is what must stay
	// free on the disk, in bytes (1 GiB).
	MaxBytes, KeepFree int64
	Stall              time.Duration // a connection without a byte is given up (60 s)
	Pause              time.Duration // before another try (1 s); doubles
	Within             time.Duration // bounds a pull (6 h)
	Log                *slog.Logger
	Transport          http.RoundTripper // tests
	// Free says how many bytes the file system of a directory has left.
	Free func(dir string) (int64, error)
}

// Puller brings images into a directory.
type Puller struct {
	cfg Config
	wg  sync.WaitGroup

	mu   sync.Mutex
	jobs []*job // newest last
	next int
	busy map[string]chan struct{} // manifests being pulled, by digest
}

// workDir below Config.Dir holds what is not an image yet, or not any more.
const workDir = ".pull"

// keptJobs bounds the answers about ended pulls.
const keptJobs = 50

// job is one pull.
type job struct {
	req  vmmapi.PullRequest
	done chan struct{}
	mu   sync.Mutex
	p    vmmapi.Pull
}

func (j *job) set(fn func(*vmmapi.Pull)) {
	j.mu.Lock()
	fn(&j.p)
	j.mu.Unlock()
}

func (j *job) view() vmmapi.Pull {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.p
}

// New prepares the directory; what a killed process left half-made is removed, what
// it had downloaded is kept.
func New(c Config) (*Puller, error) {
	def := func(v *int64, d int64) {
		if *v == 0 {
			*v = d
		}
	}
	def(&c.MaxBytes, 8<<30)
	def(&c.KeepFree, 1<<30)
	def((*int64)(&c.Stall), int64(time.Minute))
	def((*int64)(&c.Pause), int64(time.Second))
	def((*int64)(&c.Within), int64(6*time.Hour))
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Free == nil {
		c.Free = free
	}
	p := &Puller{cfg: c, busy: map[string]chan struct{}{}}
	for _, d := range []string{"stage", "trash"} {
		if err := os.RemoveAll(p.work(d)); err != nil {
			return nil, cvm.Errorf(cvm.Internal, "clearing the image directory: %w", err)
		}
	}
	return p, nil
}

func free(dir string) (int64, error) {
	var st unix.Statfs_t
	err := unix.Statfs(dir, &st)
	return int64(st.Bavail) * st.Bsize, err //nolint:gosec // a disk's size
}

func (p *Puller) work(sub ...string) string {
	return filepath.Join(append([]string{p.cfg.Dir, workDir}, sub...)...)
}

// Start begins a pull that lives in ctx, or joins the same one under way.
func (p *Puller) Start(ctx context.Context, req vmmapi.PullRequest) (vmmapi.Pull, error) {
	if _, err := parseRef(req.Ref); err != nil {
		return vmmapi.Pull{}, err
	}
	if req.Name != "" && !image.ValidName(req.Name) {
		return vmmapi.Pull{}, cvm.Errorf(cvm.Invalid, "image name %q: letters, digits, _ . and -, at most 64", req.Name).WithReason("image-name")
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, j := range p.jobs {
		if v := j.view(); j.req == req && !v.Ended() {
			return v, nil
		}
	}
	p.next++
	j := &job{req: req, done: make(chan struct{}), p: vmmapi.Pull{ID: strconv.Itoa(p.next), Ref: req.Ref, Name: req.Name, Phase: vmmapi.PullResolving, StartedAt: time.Now()}}
	if p.jobs = append(p.jobs, j); len(p.jobs) > keptJobs {
		p.jobs = slices.DeleteFunc(p.jobs, func(o *job) bool { return o == p.jobs[0] && o.view().Ended() })
	}
	p.wg.Go(func() { p.run(ctx, j) })
	return j.view(), nil
}

// run does the pull and says how it ended.
func (p *Puller) run(ctx context.Context, j *job) {
	defer close(j.done)
	ctx, cancel := context.WithTimeout(ctx, p.cfg.Within)
	defer cancel()
	err := p.pull(ctx, j)
	j.set(func(s *vmmapi.Pull) {
		s.EndedAt, s.Phase = time.Now(), vmmapi.PullDone
		if err != nil {
			s.Phase, s.Error = vmmapi.PullFailed, problem(err)
		}
	})
	if err != nil {
		p.cfg.Log.Warn("pulling an image", "ref", j.req.Ref, "error", err)
		return
	}
	v := j.view()
	p.cfg.Log.Info("image pulled", "ref", v.Ref, "name", v.Name, "hash", v.Hash.String(), "signed_by", v.SignedBy)
}

func problem(err error) *vmmapi.VMError {
	e := &vmmapi.VMError{Reason: cvm.ReasonOf(err), Message: err.Error()}
	var ce *cvm.Error
	if errors.As(err, &ce) {
		e.Fix = ce.Fix
	}
	if e.Reason == "" {
		e.Reason = "image-pull-failed"
	}
	return e
}

// Pulls lists pulls, newest first.
func (p *Puller) Pulls() []vmmapi.Pull {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := make([]vmmapi.Pull, 0, len(p.jobs))
	for _, j := range slices.Backward(p.jobs) {
		out = append(out, j.view())
	}
	return out
}

// Wait returns when the pull has ended, or ctx.
func (p *Puller) Wait(ctx context.Context, id string) (vmmapi.Pull, error) {
	p.mu.Lock()
	i := slices.IndexFunc(p.jobs, func(j *job) bool { return j.view().ID == id })
	if i < 0 {
		p.mu.Unlock()
		return vmmapi.Pull{}, cvm.Errorf(cvm.NotFound, "there is no pull %q", id)
	}
	j := p.jobs[i]
	p.mu.Unlock()
	select {
	case <-j.done:
		return j.view(), nil
	case <-ctx.Done():
		return j.view(), ctx.Err()
	}
}

// Close waits for pulls under way; end their context first.
func (p *Puller) Close() { p.wg.Wait() }

// claim makes one pull of a manifest happen at a time.
func (p *Puller) claim(ctx context.Context, digest string) (release func(), err error) {
	for {
		p.mu.Lock()
		other := p.busy[digest]
		if other == nil {
			mine := make(chan struct{})
			p.busy[digest] = mine
			p.mu.Unlock()
			return func() {
				p.mu.Lock()
				delete(p.busy, digest)
				p.mu.Unlock()
				close(mine)
			}, nil
		}
		p.mu.Unlock()
		select {
		case <-other:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func blobName(sum [32]byte) string { return hex.EncodeToString(sum[:]) }
