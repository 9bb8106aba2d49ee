package api

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"golang.org/x/net/dns/dnsmessage"

	"github.com/confidential-cloud/phala/api/cloudapi"
	"github.com/confidential-cloud/phala/api/store"
)

// domainRoutes look at the records that lead a domain to an app.
func (s *Server) domainRoutes(api huma.API) {
	register(s, api, op{method: "POST", path: "/cvms/{id}/customize-domain-diagnose", summary: "Do a domain's DNS records lead to the app", access: reads("cvms")}, s.diagnose)
}

var domainForm = regexp.MustCompile(`^([a-z0-9_]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z]([a-z0-9-]{0,61}[a-z0-9])$`)

// diagnoseTimeout bounds all lookups of one request.
const diagnoseTimeout = 30 * time.Second

type diagnoseInput struct {
	IDInput
	Body cloudapi.DiagnoseRequest
}

func (s *Server) diagnose(ctx context.Context, in *diagnoseInput) (out cloudapi.Diagnosis, err error) {
	c, err := s.find(ctx, in.ID)
	if err != nil {
		return out, err
	}
	var p problems
	for i, d := range in.Body.Domains {
		if !domainForm.MatchString(normal(d.Domain)) {
			p.add(fmt.Sprintf("domains.%d.domain", i), "value_error", fmt.Sprintf("%.80q is no domain", d.Domain), "for example: app.example.com")
		}
	}
	if err := p.err(); err != nil {
		return out, err
	}
	r := resolver{s.cfg.DNSResolver}
	if r.addr == "" {
		if r.addr, err = systemResolver(); err != nil {
			return out, err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, diagnoseTimeout)
	defer cancel()
	for _, d := range in.Body.Domains {
		v, err := s.diagnoseDomain(ctx, r, c, normal(d.Domain), d.Port)
		if err != nil {
			return out, err
		}
		out.Results = append(out.Results, v)
	}
	return out, nil
}

func normal(domain string) string {
	return strings.ToLower(strings.TrimSuffix(strings.TrimSpace(domain), "."))
}

// diagnoseDomain looks at the name's CNAME, at the record that names the app, and at
// who may issue certificates.
func (s *Server) diagnoseDomain(ctx context.Context, r resolver, c store.CVM, domain string, port int) (v cloudapi.DomainDiagnosis, err error) {
	v = cloudapi.DomainDiagnosis{Domain: domain, Port: port}
	cname := cloudapi.DNSRecord{RecordType: "CNAME", QueryName: domain, ExpectedValue: "_." + s.cfg.Gateway.Domain}
	got, err := r.lookup(ctx, domain, dnsmessage.TypeCNAME)
	if err != nil {
		return v, err
	}
	cname.ActualValue = opt(strings.Join(got, ", "))
	cname.IsValid = len(got) == 1 && (got[0] == strings.ToLower(s.cfg.Gateway.Domain) || strings.HasSuffix(got[0], "."+strings.ToLower(s.cfg.Gateway.Domain)))
	if !cname.IsValid && len(got) == 0 {
		if addrs, err := r.lookup(ctx, domain, dnsmessage.TypeA); err == nil && len(addrs) > 0 {
			cname.ActualValue, cname.WarningMessage = ptr(strings.Join(addrs, ", ")), ptr("the domain has addresses of its own: they stop working when the gateway moves")
		}
	}
	name := "_dstack-app-address." + domain
	txt := cloudapi.DNSRecord{RecordType: "TXT", QueryName: name, ExpectedValue: fmt.Sprintf("%s:%d", c.AppID, port)}
	if got, err = r.lookup(ctx, name, dnsmessage.TypeTXT); err != nil {
		return v, err
	}
	txt.ActualValue, txt.IsValid = opt(strings.Join(got, ", ")), len(got) == 1 && leadsTo(got[0], c, port)
	if len(got) > 1 {
		txt.WarningMessage = ptr("there are several such records: which one counts is not defined")
	}
	v.Records, v.IsValid = []cloudapi.DNSRecord{cname, txt}, cname.IsValid && txt.IsValid
	if v.CAACheck, err = caaOf(ctx, r, domain); err != nil {
		return v, err
	}
	return v, nil
}

// leadsTo reads <app id or instance id>:<port>.
func leadsTo(value string, c store.CVM, port int) bool {
	id, p, ok := strings.Cut(strings.ToLower(strings.TrimSpace(value)), ":")
	return ok && p == fmt.Sprint(port) && (id == c.AppID || c.InstanceID != "" && id == c.InstanceID)
}

var accountURI = regexp.MustCompile(`accounturi=([^;"\s]+)`)

// caaOf finds the CAA records that count for a domain: its own, else its parent's
// (RFC 8659). A match is that some issuer is allowed and bound to one account.
func caaOf(ctx context.Context, r resolver, domain string) (*cloudapi.CAACheck, error) {
	for name := domain; strings.Contains(name, "."); _, name, _ = strings.Cut(name, ".") {
		got, err := r.lookup(ctx, name, typeCAA)
		if err != nil {
			return nil, err
		}
		if len(got) == 0 {
			continue
		}
		slices.Sort(got)
		v := &cloudapi.CAACheck{CAARecords: got, ACMEFetches: []struct{}{}}
		for _, rec := range got {
			if m := accountURI.FindStringSubmatch(rec); m != nil && strings.Contains(rec, " issue") {
				v.AccountURI, v.IsMatch = ptr(m[1]), true
			}
		}
		if !v.IsMatch {
			v.InfoMessage = ptr("the records bind no ACME account (accounturi): others can get certificates for this domain too")
		}
		return v, nil
	}
	return nil, nil
}
