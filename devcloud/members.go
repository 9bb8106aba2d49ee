package devcloud

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"time"

	"github.com/confidential-cloud/phala/governance/ethereum"
	"github.com/confidential-cloud/phala/internal/config"
	"github.com/confidential-cloud/phala/kms"
	"github.com/confidential-cloud/phala/kms/kmsapi"
)

// memberURLs are the KMS members as this host, or as guests, reach them.
func (c *Cloud) memberURLs(host string) (urls []string) {
	for i := range c.cfg.Members {
		urls = append(urls, "https://"+net.JoinHostPort(host, strconv.Itoa(c.cfg.Ports.KMS+i)))
	}
	return urls
}

// memberConfig is member i's configuration (i counts from 0).
func (c *Cloud) memberConfig(i int) kms.Config {
	k := kms.Default()
	k.ID, k.Dir, k.Cluster = memberID(i), c.state.Path("kms", strconv.Itoa(i+1)), "phala-devcloud"
	port := strconv.Itoa(c.cfg.Ports.KMS + i)
	k.RPC = c.addrs(port)
	k.URLs = []string{c.memberURLs("127.0.0.1")[i], c.memberURLs(c.guestHost)[i]}
	k.Raft = loopback(c.cfg.Ports.KMSRaft + i)
	for j := range c.cfg.Members {
		if j != i {
			k.Peers = append(k.Peers, loopback(c.cfg.Ports.KMSRaft+j))
		}
	}
	k.Bootstrap = i == 0
	k.VMConfig, k.SimTEE = c.facts.KMSVMConfig, c.teeSock()
	k.CollateralURLs = []string{c.collateralURL()}
	k.Attestation.SimulatedRoots = c.simRoots()
	k.Attestation.SNP, k.KDSURLs = c.snpPolicy()
	k.Attestation.Variants, k.Attestation.AnyACPI = c.variants()
	if c.cfg.MaxStaleness > 0 {
		k.MaxStaleness = config.Duration(c.cfg.MaxStaleness)
	}
	if c.cfg.LeaseTTL > 0 {
		k.LeaseTTL = config.Duration(c.cfg.LeaseTTL)
	}
	if c.cfg.KMS != nil {
		c.cfg.KMS(&k)
	}
	return k
}

// startKMS starts the members: the first makes the root keys at the very first
// start, the others join it; later all come back with what they sealed.
func (c *Cloud) startKMS(ctx context.Context, note func(string, ...any)) error {
	for i := range c.cfg.Members {
		c.members = append(c.members, memberID(i))
		if err := c.startMember(ctx, i); err != nil {
			return err
		}
	}
	return c.await(ctx, service{name: "KMS", ready: func(ctx context.Context) error { return c.quorum(ctx, note) }})
}

func memberID(i int) string { return fmt.Sprintf("kms-%d", i+1) }

func (c *Cloud) startMember(ctx context.Context, i int) error {
	conf := c.memberConfig(i)
	var err error
	if conf.Log, err = c.logger(conf.ID); err != nil {
		return err
	}
	gov := ethereum.Config{
		RPCURLs: []string{c.rpcURL()}, ChainID: c.cfg.ChainID, KMSContract: c.contracts.KMS.Hex(),
		MaxStaleness: conf.MaxStaleness, Log: conf.Log,
	}
	reader, err := ethereum.New(ctx, gov)
	if err != nil {
		return err
	}
	conf.Authority = reader
	member, err := kms.New(conf)
	if err != nil {
		return fmt.Errorf("KMS member %s: %w", conf.ID, err)
	}
	s := service{
		name: conf.ID, binary: "phala-kms", run: member.Run,
		config: &kms.File{KMS: conf, Governance: kms.Governance{
			RPCURLs: gov.RPCURLs, ChainID: gov.ChainID, KMSContract: gov.KMSContract,
		}},
		ready: func(ctx context.Context) error { return c.memberAnswers(ctx, i) },
	}
	// A cold start needs a quorum before any member answers: only the very first
	// start of a cluster can wait for one member at a time.
	if i > 0 || c.facts.KMSRoot != "" {
		s.ready = func(context.Context) error { return nil }
	}
	return c.start(ctx, s)
}

func (c *Cloud) kmsClient(urls []string) (*kmsapi.Client, error) {
	// The first look of all has nothing to compare with; from then on it is pinned.
	return kmsapi.New(kmsapi.Config{URLs: urls, RootSPKI: c.facts.KMSRoot, Unpinned: c.facts.KMSRoot == ""})
}

func (c *Cloud) memberAnswers(ctx context.Context, i int) error {
	cl, err := c.kmsClient(c.memberURLs("127.0.0.1")[i : i+1])
	if err != nil {
		return err
	}
	defer cl.Close()
	st, err := cl.Status(ctx)
	if err != nil {
		return err
	}
	if !st.Quorum {
		return fmt.Errorf("state %s, no quorum yet", st.State)
	}
	return nil
}

// quorum waits until every member is in, and learns what the KMS is called.
func (c *Cloud) quorum(ctx context.Context, note func(string, ...any)) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	var errs []error
	for i := range c.cfg.Members {
		if err := c.memberAnswers(ctx, i); err != nil {
			errs = append(errs, fmt.Errorf("member %d: %w", i+1, err))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	cl, err := c.kmsClient(c.memberURLs("127.0.0.1"))
	if err != nil {
		return err
	}
	defer cl.Close()
	meta, err := cl.Meta(ctx)
	if err != nil {
		return err
	}
	if len(meta.Members) != c.cfg.Members {
		return fmt.Errorf("%d of %d members have joined", len(meta.Members), c.cfg.Members)
	}
	c.meta = meta
	for _, w := range meta.Warnings {
		note("KMS: %s", w)
	}
	return nil
}
