package certs

import (
	"context"
	"encoding/base64"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/libdns/libdns"
	"github.com/miekg/dns"

	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/keys"
)

// rfc2136 writes TXT records by dynamic update, signed with TSIG (RFC 8945).
type rfc2136 struct {
	server, keyName, algorithm string
	key                        keys.Secret // base64, as miekg/dns wants it
}

var _ certmagic.DNSProvider = (*rfc2136)(nil)

// tsigFudge is how far the clocks may differ, in seconds.
const tsigFudge = 300

func newRFC2136(c DNS) (*rfc2136, error) {
	if _, _, err := net.SplitHostPort(c.Server); err != nil {
		return nil, cvm.Errorf(cvm.Invalid, "acme.dns.server %q: want host:port", c.Server)
	}
	b, err := os.ReadFile(c.KeyFile)
	if err != nil {
		return nil, cvm.Errorf(cvm.Invalid, "acme.dns.key_file: %w", err)
	}
	secret := strings.TrimSpace(string(b))
	if raw, err := base64.StdEncoding.DecodeString(secret); err != nil || len(raw) < 16 {
		return nil, cvm.Errorf(cvm.Invalid, "acme.dns.key_file %s: want a base64 TSIG key of at least 16 bytes", c.KeyFile)
	}
	p := &rfc2136{server: c.Server, keyName: dns.Fqdn(c.KeyName), key: keys.NewSecret([]byte(secret))}
	switch c.KeyAlgorithm {
	case "", "hmac-sha256":
		p.algorithm = dns.HmacSHA256
	case "hmac-sha384":
		p.algorithm = dns.HmacSHA384
	case "hmac-sha512":
		p.algorithm = dns.HmacSHA512
	default:
		return nil, cvm.Errorf(cvm.Invalid, "acme.dns.key_algorithm %q is not one of hmac-sha256, hmac-sha384, hmac-sha512", c.KeyAlgorithm)
	}
	return p, nil
}

// AppendRecords implements libdns.RecordAppender.
func (p *rfc2136) AppendRecords(ctx context.Context, zone string, recs []libdns.Record) ([]libdns.Record, error) {
	return recs, p.update(ctx, zone, recs, (*dns.Msg).Insert)
}

// DeleteRecords implements libdns.RecordDeleter.
func (p *rfc2136) DeleteRecords(ctx context.Context, zone string, recs []libdns.Record) ([]libdns.Record, error) {
	return recs, p.update(ctx, zone, recs, (*dns.Msg).Remove)
}

func (p *rfc2136) update(ctx context.Context, zone string, recs []libdns.Record, apply func(*dns.Msg, []dns.RR)) error {
	m := new(dns.Msg)
	m.SetUpdate(dns.Fqdn(zone))
	for _, r := range recs {
		rr := r.RR()
		if rr.Type != "TXT" {
			return cvm.Errorf(cvm.Unsupported, "DNS update of type %s", rr.Type)
		}
		apply(m, []dns.RR{&dns.TXT{
			Hdr: dns.RR_Header{
				Name: dns.Fqdn(libdns.AbsoluteName(rr.Name, zone)), Rrtype: dns.TypeTXT, Class: dns.ClassINET,
				Ttl: uint32(rr.TTL / time.Second),
			},
			Txt: []string{rr.Data},
		}})
	}
	m.SetTsig(p.keyName, p.algorithm, tsigFudge, time.Now().Unix())
	c := &dns.Client{Net: "tcp", TsigSecret: map[string]string{p.keyName: string(p.key.Reveal())}, Timeout: 15 * time.Second}
	in, _, err := c.ExchangeContext(ctx, m, p.server)
	if err != nil {
		return fmt.Errorf("DNS update at %s: %w", p.server, err)
	}
	if in.Rcode != dns.RcodeSuccess {
		return fmt.Errorf("DNS update of %s at %s: %s", zone, p.server, dns.RcodeToString[in.Rcode])
	}
	return nil
}
