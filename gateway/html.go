package gateway

import (
	"bytes"
	"fmt"
	"html/template"
	"io"
	"net"
	"net/http"
	"strings"

	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/gateway/gatewayapi"
	"github.com/confidential-cloud/phala/internal/rpc"
)

const style = `<style>body{font:16px/1.5 system-ui,sans-serif;max-width:42rem;margin:12vh auto;padding:0 1.5rem;color:#1a1a1a;background:#fdfdfb}
h1{font-size:1.5rem}code{background:#eee;padding:.1em .3em;border-radius:.2em;word-break:break-all}.w{background:#ffe9b3;padding:.5em 1em;border-radius:.3em}
footer{margin-top:3rem;color:#666;font-size:.85rem}@media(prefers-color-scheme:dark){body{color:#eee;background:#181818}code{background:#333}.w{color:#222}}</style>`

var errorPage = template.Must(template.New("error").Parse(`<!doctype html><html lang="en"><head><meta charset="utf-8">` +
	`<meta name="viewport" content="width=device-width"><title>{{.Status}} {{.Title}}</title>` + style + `</head><body>
<h1>{{.Title}}</h1><p>{{.Message}}.</p>{{if .Fix}}<p>What to do: {{.Fix}}.</p>{{end}}
<footer>{{.Status}} · {{.Reason}} · answered by the gateway, not by the app</footer></body></html>
`))

var indexPage = template.Must(template.New("index").Parse(`<!doctype html><html lang="en"><head><meta charset="utf-8">` +
	`<meta name="viewport" content="width=device-width"><title>Gateway of {{.BaseDomain}}</title>` + style + `</head><body>
<h1>Gateway of {{.BaseDomain}}</h1>{{if .Simulated}}<p class="w"><b>SIMULATED TEE.</b> This cloud runs on simulated hardware: its evidence proves nothing about hardware.</p>{{end}}
<p>Apps are at <code>https://&lt;app id&gt;[-&lt;port&gt;][s|g].{{.BaseDomain}}</code>: TLS ends in this gateway's enclave, or with <code>s</code> in the app; <code>g</code> is HTTP/2.</p>
<p>Do not trust this page: check it. <code>phala verify https://gateway.{{.BaseDomain}}</code> asks for
<a href="/.well-known/phala">/.well-known/phala</a> and <code>/evidence?nonce=&lt;hex&gt;</code>, a quote over your nonce and this connection's TLS key.</p>
<footer>gateway app <code>{{.AppID}}</code> · version {{.Version}}</footer></body></html>
`))

func (p *pages) index(w http.ResponseWriter) {
	var b bytes.Buffer
	if err := indexPage.Execute(&b, p.g.info()); err != nil {
		http.Error(w, "page failed", http.StatusInternalServerError)
		return
	}
	htmlHeaders(w)
	_, _ = w.Write(b.Bytes())
}

func htmlHeaders(w http.ResponseWriter) {
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'")
	h.Set("X-Content-Type-Options", "nosniff")
}

// explain is the status and headline of a refusal.
func explain(reason string) (status int, title string) {
	switch reason {
	case gatewayapi.ReasonUnknownApp:
		return http.StatusNotFound, "No such app here"
	case gatewayapi.ReasonBadName:
		return http.StatusNotFound, "This name is not an app's"
	case gatewayapi.ReasonNotConnected:
		return http.StatusServiceUnavailable, "The app is not connected"
	case gatewayapi.ReasonPortRefused:
		return http.StatusForbidden, "The app does not allow this port"
	case gatewayapi.ReasonPortClosed:
		return http.StatusBadGateway, "Nothing listens on this port"
	case gatewayapi.ReasonTooMany:
		return http.StatusServiceUnavailable, "Too many connections"
	case gatewayapi.ReasonPlainHTTP:
		return http.StatusBadRequest, "This port speaks HTTPS"
	}
	return http.StatusInternalServerError, "The gateway failed"
}

// grpcCode is the gRPC status that fits (unimplemented names do not exist here).
func grpcCode(status int) int {
	switch status {
	case http.StatusNotFound:
		return 5 // NOT_FOUND
	case http.StatusForbidden:
		return 7 // PERMISSION_DENIED
	case http.StatusInternalServerError:
		return 13 // INTERNAL
	}
	return 14 // UNAVAILABLE
}

// writeError explains in the client's language: HTML, JSON, gRPC or plain text.
func writeError(w http.ResponseWriter, r *http.Request, err error) {
	reason := cvm.ReasonOf(err)
	status, title := explain(reason)
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	h.Set(gatewayapi.HeaderReason, reason)
	h.Set("Connection", "close") // the app may come; this connection would never see it
	if status == http.StatusServiceUnavailable {
		h.Set("Retry-After", "5")
	}
	accept := r.Header.Get("Accept")
	switch {
	case strings.HasPrefix(r.Header.Get("Content-Type"), "application/grpc"):
		h.Set("Content-Type", "application/grpc")
		h.Set("Grpc-Status", fmt.Sprint(grpcCode(status)))
		h.Set("Grpc-Message", grpcText(err.Error()))
		w.WriteHeader(http.StatusOK) // trailers-only: gRPC's errors are not HTTP's
	case strings.Contains(accept, "text/html"):
		htmlHeaders(w)
		w.WriteHeader(status)
		_ = errorPage.Execute(w, pageOf(err))
	case strings.Contains(accept, "application/json"):
		e := &cvm.Error{Code: cvm.CodeOf(err), Reason: reason, Message: err.Error(), Fix: fixOf(err)}
		rpc.WriteJSON(w, status, map[string]any{"error": e})
	default:
		h.Set("Content-Type", "text/plain; charset=utf-8")
		w.WriteHeader(status)
		_, _ = fmt.Fprintf(w, "%d %s\n%s.\n", status, title, err)
		if f := fixOf(err); f != "" {
			_, _ = fmt.Fprintf(w, "What to do: %s.\n", f)
		}
	}
}

// grpcText percent-encodes what gRPC does not allow in a message.
func grpcText(s string) string {
	var b strings.Builder
	for _, c := range []byte(s) {
		if c < 0x20 || c > 0x7e || c == '%' {
			fmt.Fprintf(&b, "%%%02X", c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

type errorView struct {
	Status                      int
	Title, Message, Fix, Reason string
}

func pageOf(err error) errorView {
	status, title := explain(cvm.ReasonOf(err))
	return errorView{status, title, err.Error(), fixOf(err), cvm.ReasonOf(err)}
}

// plainHTTP answers a client that speaks HTTP where TLS is spoken. Nothing of the
// request is read: the answer is the same for all.
func (g *Gateway) plainHTTP(c net.Conn) {
	err := cvm.Errorf(cvm.Invalid, "a plain HTTP request came to the HTTPS port").
		WithReason(gatewayapi.ReasonPlainHTTP).WithFix("use https:// in the address")
	var b bytes.Buffer
	_ = errorPage.Execute(&b, pageOf(err))
	_, _ = fmt.Fprintf(c, "HTTP/1.1 400 Bad Request\r\nContent-Type: text/html; charset=utf-8\r\nX-Phala-Reason: %s\r\n"+
		"Content-Length: %d\r\nConnection: close\r\n\r\n", gatewayapi.ReasonPlainHTTP, b.Len())
	_, _ = io.Copy(c, &b)
	lingerClose(c)
}
