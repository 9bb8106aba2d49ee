package ethereum

import (
	"context"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/ethclient"

	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/governance"
	"github.com/confidential-cloud/phala/internal/config"
)

// Defaults and limits of reading.
const (
	DefaultMaxStaleness = 60 * time.Second
	DefaultHeadSlack    = 8
	// maxFuture is how far ahead of the local clock a block's time may be.
	maxFuture   = 15 * time.Second
	callTimeout = 20 * time.Second
)

// Config of a Reader.
type Config struct {
	// RPCURLs must all agree. One is enough to run, two or more by different
	// operators are what makes the answer worth something.
	RPCURLs     []string `toml:"rpc_urls"`
	ChainID     uint64   `toml:"chain_id"`
	KMSContract string   `toml:"kms_contract"` // 0x-address of DstackKms (the proxy)
	// Final says which block an allow must hold at: "finalized" (default), "safe"
	// or "head-N" (N blocks behind the head, for chains without finality).
	Final        string          `toml:"final"`
	MaxStaleness config.Duration `toml:"max_staleness"` // of the head, default 60 s
	// HeadSlack is how many blocks the endpoints' heads may be apart, and how far
	// the head may go back in a reorganisation; default 8.
	HeadSlack uint64 `toml:"head_slack"`

	Log *slog.Logger     `toml:"-"`
	Now func() time.Time `toml:"-"` // nil: time.Now
}

// Validate reports all problems at once.
func (c Config) Validate() error {
	var p []string
	if len(c.RPCURLs) == 0 {
		p = append(p, "rpc_urls is empty")
	}
	if c.ChainID == 0 {
		p = append(p, "chain_id is missing")
	}
	if _, err := ParseAddress(c.KMSContract); err != nil {
		p = append(p, "kms_contract: "+err.Error())
	}
	if _, err := parseFinal(c.Final); err != nil {
		p = append(p, err.Error())
	}
	if c.MaxStaleness < 0 {
		p = append(p, "max_staleness is negative")
	}
	if p != nil {
		return cvm.Errorf(cvm.Invalid, "governance: %s", strings.Join(p, "; "))
	}
	return nil
}

// HighWater is the newest blocks a Reader has seen. Keep it where it survives
// restarts and give it back with Raise: heights never go back.
type HighWater struct {
	Final governance.BlockRef `json:"final"`
	Head  governance.BlockRef `json:"head"`
}

// Reader is an Authority. It is safe for concurrent use.
type Reader struct {
	cfg       Config
	final     finalMode
	contract  common.Address
	endpoints []named
	log       *slog.Logger
	now       func() time.Time

	mu   sync.Mutex
	high HighWater
}

type named struct {
	name string // for messages: the URL without its path and credentials
	Endpoint
}

// New connects to the endpoints. Nothing is asked yet: an endpoint that is down
// shows at the first question.
func New(ctx context.Context, c Config) (*Reader, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	var list []named
	for _, u := range c.RPCURLs {
		e, err := Dial(ctx, u)
		if err != nil {
			return nil, err
		}
		list = append(list, named{hostOf(u), e})
	}
	return newReader(c, list)
}

// NewWith is New over endpoints that are connected already.
func NewWith(c Config, endpoints ...Endpoint) (*Reader, error) {
	var list []named
	c.RPCURLs = nil
	for i, e := range endpoints {
		name := "endpoint " + strconv.Itoa(i+1)
		c.RPCURLs = append(c.RPCURLs, name)
		list = append(list, named{name, e})
	}
	if err := c.Validate(); err != nil {
		return nil, err
	}
	return newReader(c, list)
}

func newReader(c Config, list []named) (*Reader, error) {
	f, err := parseFinal(c.Final)
	if err != nil {
		return nil, err
	}
	if c.MaxStaleness == 0 {
		c.MaxStaleness = config.Duration(DefaultMaxStaleness)
	}
	if c.HeadSlack == 0 {
		c.HeadSlack = DefaultHeadSlack
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return &Reader{cfg: c, final: f, contract: common.HexToAddress(c.KMSContract), endpoints: list, log: c.Log, now: c.Now}, nil
}

// Close drops the connections.
func (r *Reader) Close() {
	for _, e := range r.endpoints {
		if c, ok := e.Endpoint.(*ethclient.Client); ok {
			c.Close()
		}
	}
}

// HighWater returns the newest blocks seen so far.
func (r *Reader) HighWater() HighWater {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.high
}

// Raise takes over a high-water mark from elsewhere (a restart, another member):
// whatever is below it is refused from now on. It never lowers anything.
func (r *Reader) Raise(h HighWater) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if h.Final.Number > r.high.Final.Number {
		r.high.Final = h.Final
	}
	if h.Head.Number > r.high.Head.Number {
		r.high.Head = h.Head
	}
}

// finalMode is a parsed Config.Final.
type finalMode struct {
	text string
	tag  int64  // rpc block tag, or 0 for head-N
	back uint64 // N
}

func parseFinal(s string) (finalMode, error) {
	switch s {
	case "", "finalized":
		return finalMode{text: "finalized", tag: tagFinalized}, nil
	case "safe":
		return finalMode{text: s, tag: tagSafe}, nil
	}
	if n, ok := strings.CutPrefix(s, "head-"); ok {
		if v, err := strconv.ParseUint(n, 10, 32); err == nil {
			return finalMode{text: s, back: v}, nil
		}
	}
	return finalMode{}, cvm.Errorf(cvm.Invalid, "final: %q is not finalized, safe or head-N", s)
}

// hostOf keeps what may be shown of a URL: paths and queries often hold API keys.
func hostOf(u string) string {
	_, rest, ok := strings.Cut(u, "://")
	if !ok {
		return "endpoint"
	}
	rest, _, _ = strings.Cut(rest, "/")
	if i := strings.LastIndex(rest, "@"); i >= 0 {
		rest = rest[i+1:]
	}
	return rest
}

func ref(number uint64, hash common.Hash, unix uint64) governance.BlockRef {
	return governance.BlockRef{Number: number, Hash: hash.Hex(), Time: time.Unix(int64(unix), 0).UTC()} //nolint:gosec // block times fit
}

func refused(reason, format string, args ...any) error {
	return cvm.Errorf(cvm.Unavailable, "chain: %s", fmt.Sprintf(format, args...)).WithReason(reason)
}

var _ governance.Authority = (*Reader)(nil)
