// Command hello is the web page of the catalogue's hello app. It asks the enclave
// it runs in, through dstack.sock, which app it is.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"html/template"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"time"
)

const sock = "/var/run/dstack.sock"

// info is what the page shows of dstack.sock's Info.
type info struct {
	AppID      string `json:"app_id"`
	InstanceID string `json:"instance_id"`
	AppName    string `json:"app_name"`
}

func askInfo(ctx context.Context) (i info, err error) {
	c := http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", sock)
		},
	}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://dstack/Info", nil)
	if err != nil {
		return i, err
	}
	res, err := c.Do(req)
	if err != nil {
		return i, err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return i, fmt.Errorf("dstack.sock: %s", res.Status)
	}
	return i, json.NewDecoder(io.LimitReader(res.Body, 1<<20)).Decode(&i)
}

var page = template.Must(template.New("page").Parse(`<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{.Greeting}} from a confidential VM</title>
<style>body{font:18px/1.6 system-ui,sans-serif;max-width:40rem;margin:10vh auto;padding:0 1.5rem;color:#1a1a2e}
h1{font-size:2.2rem}code{background:#eef;padding:.1em .4em;border-radius:4px;overflow-wrap:anywhere}dt{font-weight:600;margin-top:1em}dd{margin:0}</style></head>
<body><h1>{{.Greeting}} from a confidential VM</h1>
{{if .Info.AppID}}<dl><dt>App</dt><dd><code id="app">{{.Info.AppID}}</code></dd>
{{if .Info.InstanceID}}<dt>Instance</dt><dd><code id="instance">{{.Info.InstanceID}}</code></dd>{{end}}</dl>
<p>Do not take this page's word for it: run <code>phala verify</code> on its address.</p>
{{else}}<p>dstack.sock is not mounted here, so this page cannot say which app it is.</p>{{end}}
</body></html>
`))

func main() {
	addr := os.Getenv("LISTEN")
	if addr == "" {
		addr = ":80"
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		i, err := askInfo(r.Context())
		if err != nil {
			log.Print("asking dstack.sock: ", err)
		}
		greeting := os.Getenv("GREETING")
		if greeting == "" {
			greeting = "Hello"
		}
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_ = page.Execute(w, struct {
			Greeting string
			Info     info
		}{greeting, i})
	})
	log.Print("hello listens on ", addr)
	s := http.Server{Addr: addr, Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	log.Fatal(s.ListenAndServe())
}
