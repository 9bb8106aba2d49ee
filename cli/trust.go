package cli

import (
	"crypto/x509"
	"encoding/pem"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/internal/profile"
	"github.com/confidential-cloud/phala/verify"
)

// trust loads the trust profile: --trust, else the login's. There is no default:
// what nothing pins is not believed.
func (a *app) trust(s *session, flag string) (*verify.Profile, string, error) {
	path := s.extra.Trust
	if flag != "" {
		path = a.path(flag)
	}
	if path == "" {
		return nil, "", cvm.Errorf(cvm.Precondition, "no trust profile for %s: nothing says which KMS and chain to believe", s.api.Base).
			WithReason(reasonNoTrust).WithFix("get the cloud's trust profile from someone you trust, then: phala trust use FILE (or --trust FILE)")
	}
	p, err := verify.LoadProfile(path)
	return &p, path, err
}

// gateway says where to dial when the trust profile does not: the login's address,
// or this machine for *.localhost, which resolvers need not know (RFC 6761).
func (s *session) gateway(p *verify.Profile) {
	if p.Gateway.Address == "" {
		p.Gateway.Address = s.extra.Gateway
	}
	if p.Gateway.Address == "" && (p.Gateway.Domain == "localhost" || strings.HasSuffix(p.Gateway.Domain, ".localhost")) {
		p.Gateway.Address = net.JoinHostPort("127.0.0.1", strconv.Itoa(p.Gateway.Port))
	}
}

// caPEM is the private CA of the gateway, or "".
func (s *session) caPEM(p *verify.Profile) (string, error) {
	if p != nil && p.Gateway.CAPEM != "" {
		return p.Gateway.CAPEM, nil
	}
	if s.extra.CA == "" {
		return "", nil
	}
	b, err := os.ReadFile(s.extra.CA)
	return string(b), err
}

func (a *app) trustCmd() *cobra.Command {
	return a.group("trust", "The trust profile, and the local CA of a cloud on this machine",
		a.trustShowCmd(), a.trustUseCmd(), a.trustInstallCmd())
}

// localCA is where the CA's certificate is as a file, for curl and the system store.
func (a *app) localCA(s *session) (path string, pemText string, err error) {
	t, file, err := a.trust(s, "")
	if err != nil {
		return "", "", err
	}
	if pemText, err = s.caPEM(t); err != nil {
		return "", "", err
	}
	if pemText == "" {
		return "", "", cvm.Errorf(cvm.NotFound, "this cloud's gateway uses no private CA: there is nothing to install")
	}
	if s.extra.CA != "" {
		return s.extra.CA, pemText, nil
	}
	path = filepath.Join(filepath.Dir(file), "phala-ca.pem")
	if exists(path) {
		return path, pemText, nil
	}
	path = filepath.Join(s.dir, "ca-"+s.name+".pem")
	return path, pemText, profile.WriteFile(path, []byte(pemText))
}

func (a *app) trustShowCmd() *cobra.Command {
	return &cobra.Command{Use: "show", Short: "Show the trust profile and the CA file, with a hint for curl", Args: args(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			s, err := a.session()
			if err != nil {
				return err
			}
			t, file, err := a.trust(s, "")
			if err != nil {
				return err
			}
			ca, _, err := a.localCA(s)
			if err != nil && cvm.CodeOf(err) != cvm.NotFound {
				return err
			}
			if a.json {
				return a.printJSON(map[string]any{"trust_profile": file, "ca_file": ca, "profile": t})
			}
			a.printFields([]field{{"Trust profile", file}, {"Name", t.Name}, {"Chain", chainText(t.Chain.ID) + ", DstackKms " + t.Chain.KMSContract},
				{"KMS key", t.KMS.K256PubKey}, {"Gateway app", t.Gateway.AppID}, {"TEE roots", roots(t)}, {"CA file", ca}})
			if ca != "" {
				a.printf("\ncurl --cacert %s https://<app>.%s:%d/\n", ca, t.Gateway.Domain, t.Gateway.Port)
			}
			return nil
		}}
}

func roots(t *verify.Profile) string {
	var out []string
	for _, r := range t.TEE.Roots {
		out = append(out, r.Platform.String()+" "+short(r.SPKI))
	}
	return strings.Join(out, ", ")
}

func (a *app) trustUseCmd() *cobra.Command {
	return &cobra.Command{Use: "use FILE", Short: "Use a trust profile with the present login",
		Long: "Use a trust profile with the present login. Whoever can change this file can make\nany cloud look verified: get it from someone you trust, not from the cloud itself.",
		Args: args(cobra.ExactArgs(1)),
		RunE: func(_ *cobra.Command, as []string) error {
			s, err := a.session()
			if err != nil {
				return err
			}
			path, err := filepath.Abs(a.path(as[0]))
			if err != nil {
				return err
			}
			t, err := verify.LoadProfile(path)
			if err != nil {
				return err
			}
			x, err := profile.LoadExtras(s.dir)
			if err != nil {
				return err
			}
			e := x.Profiles[s.name]
			e.Trust = path
			x.Profiles[s.name] = e
			if err := x.Save(s.dir); err != nil {
				return err
			}
			a.say("%s", a.good("profile "+s.name+" trusts "+t.Name+" as "+path+" says"))
			if a.json {
				return a.printJSON(map[string]any{"profile": s.name, "trust_profile": path})
			}
			return nil
		}}
}

// Debian's places for extra roots.
const (
	systemCADir  = "/usr/local/share/ca-certificates"
	systemCATool = "update-ca-certificates"
)

func (a *app) trustInstallCmd() *cobra.Command {
	var yes bool
	c := &cobra.Command{Use: "install", Short: "Add the local CA to this system's certificate store",
		Long: "Add the local CA to the system's store (" + systemCADir + " and " + systemCATool + ").\nEvery program of this machine then accepts certificates that this CA signs.",
		Args: args(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			s, err := a.session()
			if err != nil {
				return err
			}
			_, text, err := a.localCA(s)
			if err != nil {
				return err
			}
			return a.installCA(s, text, yes)
		}}
	c.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	return c
}

func (a *app) installCA(s *session, text string, yes bool) error {
	block, _ := pem.Decode([]byte(text))
	if block == nil || block.Type != "CERTIFICATE" {
		return cvm.Errorf(cvm.Invalid, "the CA file holds no certificate")
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil || !cert.IsCA {
		return cvm.Errorf(cvm.Invalid, "the CA file does not hold a CA certificate")
	}
	dst := filepath.Join(systemCADir, "phala-"+s.name+".crt")
	if !exists(systemCADir) {
		return cvm.Errorf(cvm.Unsupported, "%s is not there: only Debian's certificate store is known", systemCADir).
			WithFix("add the file that `phala trust show` names to your system's or browser's store")
	}
	if err := a.confirm(yes, "--yes", "Make every program of this machine accept certificates of "+cert.Subject.CommonName+"?"); err != nil {
		return err
	}
	if err := os.WriteFile(dst, pem.EncodeToMemory(block), 0o644); err != nil {
		return cvm.Errorf(cvm.Denied, "writing %s: %w", dst, err).WithFix("run it as root: sudo phala trust install")
	}
	if err := a.RunTool(systemCATool); err != nil {
		return cvm.Errorf(cvm.Internal, "%s: %w", systemCATool, err)
	}
	a.say("%s", a.good("installed "+dst+" (to take it back: rm it and run "+systemCATool+" --fresh)"))
	if a.json {
		return a.printJSON(map[string]any{"installed": dst})
	}
	return nil
}
