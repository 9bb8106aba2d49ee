package serve

import (
	"html/template"
	"net/http"
	"strings"

	"github.com/confidential-cloud/phala/guest-agent/guestapi"
)

var page = template.Must(template.New("").Parse(`<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1"><title>{{.Name}}</title>
<style>body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}td,th{text-align:left;padding:.2rem 1rem .2rem 0;vertical-align:top}code{word-break:break-all}.sim{background:#fff3c4;color:#5c3d00;padding:.5rem 1rem;border-radius:.3rem}@media(prefers-color-scheme:dark){body{background:#111;color:#ddd}}</style>
<h1>{{.Name}}</h1>
{{if .Simulated}}<p class="sim">SIMULATED TEE: this proves nothing about hardware.</p>{{end}}
<table>
<tr><th>App</th><td><code>{{.App}}</code></td></tr>
<tr><th>Instance</th><td><code>{{.Instance}}</code></td></tr>
<tr><th>Compose hash</th><td><code>{{.Compose}}</code></td></tr>
<tr><th>Key provider</th><td>{{.Provider}}</td></tr>
</table>
{{if .Ignored}}<p class="sim">This guest does not know these keys of the app-compose, and ignores them:{{range .Ignored}} <code>{{.}}</code>{{end}}</p>{{end}}
<p>Do not believe this page: run <code>phala verify</code> against this app, or ask <code>/evidence?nonce=&lt;hex&gt;</code> yourself.</p>
{{if .Containers}}<h2>Containers</h2><table><tr><th>Name</th><th>Image</th><th>Status</th></tr>
{{range .Containers}}<tr><td>{{if $.Logs}}<a href="/logs/{{.Name}}?text&amp;bare&amp;tail=200">{{.Name}}</a>{{else}}{{.Name}}{{end}}</td><td>{{.Image}}</td><td>{{.Status}}</td></tr>
{{end}}</table>{{end}}
{{if .Images}}<h2>Images</h2><table><tr><th>Service</th><th>Image</th><th>Named by</th></tr>
{{range .Images}}<tr><td>{{.Service}}</td><td><code>{{.Image}}</code></td><td>{{if .Pinned}}digest{{else if .Built}}nothing: built in the guest{{else}}a tag, which the registry may move{{end}}</td></tr>
{{end}}</table>{{end}}
{{if .Requests}}<h2>What containers asked for</h2><table><tr><th>Service</th><th>Method</th><th>Key path</th><th>Purpose</th><th>Outcome</th><th>Times</th></tr>
{{range .Requests}}<tr><td>{{.Service}}</td><td>{{.Method}}</td><td>{{.Path}}</td><td>{{.Purpose}}</td><td>{{.Outcome}}</td><td>{{.Count}}</td></tr>
{{end}}</table>{{end}}
</html>
`))

type row struct{ Name, Image, Status string }

// dashboardData is what the page shows: of an app that hides something, without it.
type dashboardData struct {
	Name, App, Instance, Compose, Provider string
	Simulated, Logs                        bool
	Ignored                                []string
	Containers                             []row
	Images                                 []guestapi.ImageUse
	Requests                               []guestapi.KeyRequests
}

func (b *Backend) dashboard(w http.ResponseWriter, r *http.Request) {
	d := dashboardData{Name: b.App.Name, App: b.AppID.String(), Instance: b.InstanceID.String(), Compose: b.ComposeHash.String(), Provider: b.App.Provider(),
		Simulated: b.Simulated || b.KMS.Simulated, Logs: b.App.PublicLogs}
	if b.App.PublicSysinfo {
		d.Requests = b.Requests()
	}
	if b.Containers != nil && b.App.PublicSysinfo {
		list, err := b.Containers.Containers(r.Context())
		if err != nil {
			b.Log.Warn("listing containers for the dashboard", "err", err)
		}
		for _, c := range list {
			d.Containers = append(d.Containers, row{strings.TrimPrefix(strings.Join(c.Names, " "), "/"), c.Image, c.Status})
		}
	}
	if b.App.TCBInfoPublic() { // the compose file is public then, and with it these names
		d.Ignored = b.App.Unknown
		if b.Containers != nil {
			d.Images = b.Containers.Images()
		}
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'")
	if err := page.Execute(w, d); err != nil {
		b.Log.Debug("dashboard", "err", err)
	}
}
