package simtee

import (
	"encoding/hex"
	"net/http"
	"net/url"
	"strconv"

	"github.com/confidential-cloud/phala/attest/sevsnp"
)

// Handler is the key distribution service: the paths of AMD's KDS (57230) for this
// product. VLEK certificates are handed out without the provider's secret.
func (a *AMD) Handler() http.Handler {
	mux := http.NewServeMux()
	for _, kind := range []string{"vcek", "vlek"} {
		base := "GET /" + kind + "/v1/" + a.cfg.Product + "/"
		issuer := func() (*authorityKey, error) { return a.ask, nil }
		if kind == "vlek" {
			issuer = a.asvk
		}
		mux.HandleFunc(base+"cert_chain", func(w http.ResponseWriter, _ *http.Request) {
			i, err := issuer()
			if err != nil {
				http.Error(w, "cannot make the chain", http.StatusInternalServerError)
				return
			}
			answer(w, "application/x-pem-file", a.chain(i), nil)
		})
		mux.HandleFunc(base+"crl", func(w http.ResponseWriter, _ *http.Request) {
			i, err := issuer()
			if err != nil {
				http.Error(w, "cannot make the list", http.StatusInternalServerError)
				return
			}
			crl, err := a.revocationList(a.cfg.Clock(), i)
			answer(w, "application/pkix-crl", crl, err)
		})
	}
	name := hex.EncodeToString(a.chip[:sevsnp.HWIDSize(a.cfg.Product)])
	path := "/vcek/v1/" + a.cfg.Product + "/" + name
	if a.cfg.VLEK != "" {
		path = "/vlek/v1/" + a.cfg.Product + "/cert"
	}
	mux.HandleFunc("GET "+path, func(w http.ResponseWriter, r *http.Request) {
		tcb, ok := a.askedTCB(r.URL.Query())
		if !ok {
			http.Error(w, "bad security patch levels", http.StatusBadRequest)
			return
		}
		der, err := a.leaf(tcb)
		answer(w, "application/pkix-cert", der, err)
	})
	return mux
}

// askedTCB reads the patch levels of a request; all of the product's are needed.
func (a *AMD) askedTCB(q url.Values) (t sevsnp.TCB, ok bool) {
	parts := map[string]*uint8{"blSPL": &t.BootLoader, "teeSPL": &t.TEE, "snpSPL": &t.SNP, "ucodeSPL": &t.Microcode}
	if a.cfg.Product == sevsnp.Turin {
		parts["fmcSPL"] = &t.FMC
	}
	for name, dst := range parts {
		n, err := strconv.ParseUint(q.Get(name), 10, 8)
		if err != nil {
			return t, false
		}
		*dst = uint8(n)
	}
	return t, true
}

func answer(w http.ResponseWriter, contentType string, body []byte, err error) {
	if err != nil {
		http.Error(w, "cannot make the answer", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", contentType)
	_, _ = w.Write(body)
}
