package cli

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/vmm/vmmapi"
)

func (a *app) nodeCmd() *cobra.Command {
	list := a.nodeListing("list")
	list.Aliases = []string{"ls"}
	return a.group("node", "Run the hosts of a cloud (for operators)", list, a.nodeDrainCmd(), a.nodeUndrainCmd(), a.nodeDoctorCmd(), a.nodeJoinCmd(), a.nodeLeaveCmd(), a.nodeCheckCmd(), a.nodeShowCmd())
}

// vmmFlags say which VMM is meant: these commands speak to a host, not to the cloud.
type vmmFlags struct {
	url, tokenFile, ca string
	// seen, if set, is told the key of each TLS connection (DER SubjectPublicKeyInfo).
	seen func(spki []byte) error
}

func (f *vmmFlags) add(s *pflag.FlagSet) {
	s.StringVar(&f.url, "vmm", "http://127.0.0.1:8720", "URL of the node's VMM")
	s.StringVar(&f.tokenFile, "vmm-token-file", "/var/lib/phala/vmm/token", "file with the VMM's token")
	s.StringVar(&f.ca, "vmm-ca", "", "file with the CA certificate of the VMM (PEM; default: the system's)")
}

func (a *app) vmm(f vmmFlags) (*vmmapi.Client, error) {
	u, err := url.Parse(f.url)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, usage("--vmm %q: want http://127.0.0.1:8720 or https://host:port", f.url)
	}
	if ip, err := netip.ParseAddr(u.Hostname()); u.Scheme == "http" && u.Hostname() != "localhost" && (err != nil || !ip.IsLoopback()) {
		return nil, usage("--vmm %s: its token would cross the network in clear; use https", f.url)
	}
	token, err := readBounded(a.path(f.tokenFile), 4096)
	if err != nil {
		return nil, err
	}
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12}
	if f.seen != nil {
		t.TLSClientConfig.VerifyConnection = func(c tls.ConnectionState) error { return f.seen(c.PeerCertificates[0].RawSubjectPublicKeyInfo) }
	}
	if f.ca != "" {
		pem, err := readBounded(a.path(f.ca), 1<<20)
		if err != nil {
			return nil, err
		}
		t.TLSClientConfig.RootCAs = x509.NewCertPool()
		if !t.TLSClientConfig.RootCAs.AppendCertsFromPEM(pem) {
			return nil, usage("--vmm-ca %s holds no certificate", f.ca)
		}
	}
	h := &http.Client{Transport: t}
	return vmmapi.NewClient(strings.TrimRight(f.url, "/"), strings.TrimSpace(string(token)), h), nil
}

func (a *app) nodeDrainCmd() *cobra.Command {
	var f vmmFlags
	var reason string
	var stopAfter time.Duration
	var status bool
	var on cloudNodeFlag
	c := &cobra.Command{Use: "drain", Short: "Take a node out of service", Args: args(cobra.NoArgs),
		Long: `Take a node out of service: it refuses new VMs, also after a restart of its VMM. What runs
on it is listed and runs on; with --stop-after, it is stopped when that time is over and
does not start again before phala node undrain. Nothing is deleted and nothing is moved.

With --node the cloud does it (for who operates it), which records who did; else the VMM
itself, which --vmm names.`,
		RunE: func(c *cobra.Command, _ []string) error {
			v, err := a.drainer(c, on, f)
			if err != nil {
				return err
			}
			if status {
				s, err := v.DrainState(c.Context())
				return a.showDrain(s, err)
			}
			q := vmmapi.DrainRequest{Reason: reason}
			if c.Flags().Changed("stop-after") {
				if stopAfter < 0 {
					return usage("--stop-after %v: a time that is to come", stopAfter)
				}
				n := int64(stopAfter / time.Second)
				q.StopAfterSeconds = &n
			}
			s, err := v.Drain(c.Context(), q)
			return a.showDrain(s, err)
		}}
	f.add(c.Flags())
	on.add(c.Flags())
	c.Flags().StringVar(&reason, "reason", "", "what for; those who are refused read it")
	c.Flags().DurationVar(&stopAfter, "stop-after", 0, "stop what still runs after this time, for example 30m (0s: now)")
	c.Flags().BoolVar(&status, "status", false, "only tell how far it is")
	return c
}

func (a *app) nodeUndrainCmd() *cobra.Command {
	var f vmmFlags
	var start bool
	var on cloudNodeFlag
	c := &cobra.Command{Use: "undrain", Short: "Put a node back into service", Args: args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			v, err := a.drainer(c, on, f)
			if err != nil {
				return err
			}
			s, err := v.Undrain(c.Context(), vmmapi.UndrainRequest{Start: start})
			return a.showDrain(s, err)
		}}
	f.add(c.Flags())
	on.add(c.Flags())
	c.Flags().BoolVar(&start, "start", false, "start the VMs that the drain stopped")
	return c
}

func (a *app) showDrain(s vmmapi.DrainState, err error) error {
	if err != nil {
		return err
	}
	if a.json {
		return a.printJSON(s)
	}
	if !s.Draining {
		a.say("%s", a.good("the node is in service; running: "+plural(len(s.Running), "VM")))
		return nil
	}
	text := "the node is drained"
	if s.Reason != "" {
		text += " (" + s.Reason + ")"
	}
	a.say("%s", a.warn(text+": no new VMs; still running: "+plural(len(s.Running), "VM")))
	if !s.StopAt.IsZero() {
		a.say("what still runs is stopped at %s", s.StopAt.Format(time.RFC3339))
	}
	for _, id := range s.Running {
		a.printf("running  %s\n", id)
	}
	for _, id := range s.Stopped {
		a.printf("stopped  %s\n", id)
	}
	return nil
}

// mib shows bytes for a person.
func mib(n int64) string {
	if n < 1<<20 {
		return fmt.Sprintf("%d KiB", (n+1023)>>10)
	}
	return fmt.Sprintf("%d MiB", n>>20)
}

// ended turns a failed pull into the error it ended with.
func ended(p vmmapi.Pull) error {
	if p.Error == nil {
		return nil
	}
	return cvm.Errorf(cvm.Conflict, "%s", p.Error.Message).WithReason(p.Error.Reason).WithFix(p.Error.Fix)
}
