// Package chain is the development cloud's own blockchain: a go-ethereum node in
// this process, on a data directory, with a block every second also when idle,
// its RPC on loopback, and nobody else in the network. It keeps all state
// (archive), so that a verifier can ask what was allowed at an old block.
//
// The node is driven through its own engine API as a beacon client would do it.
// go-ethereum's SimulatedBeacon does nearly this, but it finalizes every 32
// blocks only, and after a restart its finalized block goes back, which a reader
// must take for a lie. Here finality follows the head by Config.FinalityLag
// blocks (default 2: an allow counts about 3 s after it was sent).
package chain

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"sync"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/rawdb"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/eth"
	"github.com/ethereum/go-ethereum/eth/catalyst"
	"github.com/ethereum/go-ethereum/eth/ethconfig"
	"github.com/ethereum/go-ethereum/eth/filters"
	"github.com/ethereum/go-ethereum/ethclient"
	"github.com/ethereum/go-ethereum/node"
	"github.com/ethereum/go-ethereum/p2p"
	"github.com/ethereum/go-ethereum/rpc"

	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/internal/config"
)

// Config of a development chain. The zero values of all but Dir are usable.
type Config struct {
	Dir         string          `toml:"dir"`          // data directory; it belongs to one process at a time
	Listen      string          `toml:"listen"`       // HTTP RPC, default 127.0.0.1:8545; port 0 takes a free one
	ChainID     uint64          `toml:"chain_id"`     // default 31337; fixed once the directory exists
	Multicall3  bool            `toml:"multicall3"`   // place Multicall3 at its usual address; fixed likewise
	Period      config.Duration `toml:"period"`       // between blocks, default and least 1 s (block times are whole seconds)
	FinalityLag uint64          `toml:"finality_lag"` // blocks from head to finalized, default 2
	Log         *slog.Logger    `toml:"-"`
}

// Chain is an opened chain. It makes blocks while Run runs.
type Chain struct {
	cfg    Config
	log    *slog.Logger
	node   *node.Node
	eth    *eth.Ethereum
	engine *catalyst.ConsensusAPI
	pool   sync.Mutex // see syncPool

	mu     sync.Mutex
	credit []*types.Withdrawal // to be credited in the next block
	minted uint64              // withdrawals made by this process, for their index
	closed bool
	paused bool
}

// New opens (or makes) the chain in cfg.Dir and serves its RPC. Call Run to make
// blocks, and Close if Run is never called.
func New(cfg Config) (*Chain, error) {
	if err := cfg.setDefaults(); err != nil {
		return nil, err
	}
	g, err := genesis(cfg.ChainID, cfg.Multicall3)
	if err != nil {
		return nil, err
	}
	if err := checkDir(cfg); err != nil {
		return nil, err
	}
	stack, err := newNode(cfg)
	if err != nil {
		return nil, fmt.Errorf("chain: opening %s: %w", cfg.Dir, err)
	}
	ec := ethconfig.Defaults
	ec.Genesis = g
	ec.SyncMode = ethconfig.FullSync
	ec.NoPruning = true               // keep every state: verifiers ask about old blocks
	ec.StateScheme = rawdb.HashScheme // the scheme that can
	ec.TransactionHistory = 0
	ec.LogNoHistory = true // the index of logs costs 65,536 reads at each start, and a dev chain is searched fast without
	ec.DatabaseCache, ec.TrieCleanCache, ec.TrieDirtyCache, ec.SnapshotCache = 16, 16, 16, 0
	ec.TxPool.NoLocals = true
	ec.Miner.GasCeil = gasLimit
	backend, err := eth.New(stack, &ec)
	if err != nil {
		_ = stack.Close()
		return nil, fmt.Errorf("chain: opening %s: %w", cfg.Dir, err)
	}
	stack.RegisterAPIs([]rpc.API{{Namespace: "eth",
		Service: filters.NewFilterAPI(filters.NewFilterSystem(backend.APIBackend, filters.Config{}))}})
	c := &Chain{cfg: cfg, log: cfg.Log, node: stack, eth: backend, engine: catalyst.NewConsensusAPI(backend)}
	// Before anyone can ask.
	if err := c.settle(); err != nil {
		_ = stack.Close()
		return nil, err
	}
	if err := stack.Start(); err != nil {
		_ = stack.Close()
		return nil, cvm.Errorf(cvm.Unavailable, "chain: starting: %w", err).
			WithFix("is another development cloud running, or is " + cfg.Listen + " taken?")
	}
	return c, nil
}

func (c *Config) setDefaults() error {
	if c.Dir == "" {
		return cvm.Errorf(cvm.Invalid, "chain: dir is missing")
	}
	if c.Listen == "" {
		c.Listen = "127.0.0.1:8545"
	}
	if c.ChainID == 0 {
		c.ChainID = 31337
	}
	if c.Period == 0 {
		c.Period = config.Duration(time.Second)
	}
	if c.Period < config.Duration(time.Second) {
		return cvm.Errorf(cvm.Invalid, "chain: period %s is below 1s: block times are whole seconds and would run ahead of the clock", c.Period)
	}
	if c.FinalityLag == 0 {
		c.FinalityLag = 2
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return nil
}

func newNode(cfg Config) (*node.Node, error) {
	host, port, err := net.SplitHostPort(cfg.Listen)
	if err != nil {
		return nil, cvm.Errorf(cvm.Invalid, "chain: listen %q: %w", cfg.Listen, err)
	}
	if ip := net.ParseIP(host); ip == nil || !ip.IsLoopback() {
		return nil, cvm.Errorf(cvm.Invalid, "chain: listen %q is not a loopback address: anyone who reaches a development chain owns it", cfg.Listen)
	}
	p, err := strconv.Atoi(port)
	if err != nil {
		return nil, cvm.Errorf(cvm.Invalid, "chain: listen %q: bad port", cfg.Listen)
	}
	nc := node.DefaultConfig
	nc.Name = "phala-dev-chain"
	nc.DataDir = cfg.Dir
	nc.HTTPHost, nc.HTTPPort = host, p
	nc.HTTPModules = []string{"eth", "net", "web3"}
	nc.UseLightweightKDF = true
	nc.P2P = p2p.Config{NoDiscovery: true, NoDial: true, MaxPeers: 0, ListenAddr: ""}
	return node.New(&nc)
}

// Endpoint is the RPC URL.
func (c *Chain) Endpoint() string { return c.node.HTTPEndpoint() }

// ChainID is the configured id.
func (c *Chain) ChainID() uint64 { return c.cfg.ChainID }

// Client talks to the node without a network.
func (c *Chain) Client() *ethclient.Client { return ethclient.NewClient(c.node.Attach()) }

// Fund credits an address with wei (whole gwei of them) in the next block.
func (c *Chain) Fund(to common.Address, gwei uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.credit = append(c.credit, &types.Withdrawal{Address: to, Amount: gwei})
}

// Pause stops making blocks while the RPC goes on answering, as a chain does that
// halted: what was true at its last block is all that anyone can learn from it.
func (c *Chain) Pause() { c.setPaused(true) }

// Resume makes blocks again.
func (c *Chain) Resume() { c.setPaused(false) }

func (c *Chain) setPaused(on bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.paused = on
}

func (c *Chain) isPaused() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.paused
}

// Run makes blocks until ctx ends, then closes the chain.
func (c *Chain) Run(ctx context.Context) error {
	defer func() { _ = c.Close() }()
	c.log.Info("chain runs", "endpoint", c.Endpoint(), "chain_id", c.cfg.ChainID, "head", c.eth.BlockChain().CurrentBlock().Number)
	tick := time.NewTicker(time.Duration(c.cfg.Period))
	defer tick.Stop()
	for {
		if !c.isPaused() {
			if err := c.seal(ctx); ctx.Err() != nil {
				return nil //nolint:nilerr // asked to stop
			} else if err != nil {
				c.log.Error("making a block", "err", err)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// Close stops the node and flushes its state. It may be called again.
func (c *Chain) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil
	}
	c.closed = true
	return c.node.Close()
}
