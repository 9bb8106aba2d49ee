package api

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"unicode"

	"github.com/danielgtaylor/huma/v2"

	"github.com/confidential-cloud/phala/api/cloudapi"
	"github.com/confidential-cloud/phala/api/store"
	evidence "github.com/confidential-cloud/phala/attest/check"
	"github.com/confidential-cloud/phala/attest/tdx"
	"github.com/confidential-cloud/phala/cvm"
)

// attestationRoutes judge quotes for anybody, and show those that were genuine.
func (s *Server) attestationRoutes(api huma.API) {
	register(s, api, op{method: "POST", path: "/attestations/verify", summary: "Verify a TDX quote: a file, or hex in a form or in JSON", access: open()}, s.verifyQuote)
	register(s, api, op{method: "GET", path: "/attestations/view/{checksum}", summary: "A quote that was verified here", access: open()}, s.viewQuote)
	register(s, api, op{method: "GET", path: "/attestations/recent", summary: "Quotes that were verified here, newest first", access: open()}, s.recentQuotes)
	register(s, api, op{method: "GET", path: "/attestations/nodes", summary: "The machines of this cloud", access: open()}, s.publicNodes)
	register(s, api, op{method: "GET", path: "/attestations/device_ids", summary: "Their device ids", access: open()}, s.deviceIDs)
	register(s, api, op{method: "GET", path: "/attestations/ppids", summary: "Their PPIDs, as far as a quote was verified here", access: open()}, s.ppids)
	s.quoteFile(api, "GET", "/attestations/collateral/{checksum}", "What a quote was judged by", "application/json", collateralFile)
	s.quoteFile(api, "GET", "/attestations/raw/{checksum}", "A quote's bytes", "application/octet-stream", rawFile)
	s.quoteFile(api, "HEAD", "/attestations/raw/{checksum}", "Is a quote there", "application/octet-stream", rawFile)
}

type quoteInput struct {
	ContentType string `header:"Content-Type"`
	RawBody     []byte `contentType:"multipart/form-data"`
}

// maxQuoteFile bounds what is read as a quote, in bytes: hex of the largest, twice.
const maxQuoteFile = 4 * tdx.MaxQuote

func badQuote(reason, message string, fixes ...string) error {
	return fail(http.StatusBadRequest, "", cvm.Invalid, reason, message, fixes...)
}

// bytes are the quote that a request holds: exactly one file, or one hex.
func (in *quoteInput) bytes() ([]byte, error) {
	kind, params, _ := mime.ParseMediaType(in.ContentType)
	var hexes, files []string
	switch kind {
	case "multipart/form-data":
		f, err := multipart.NewReader(bytes.NewReader(in.RawBody), params["boundary"]).ReadForm(maxRequest)
		if err != nil {
			return nil, badQuote("quote-form", "the form cannot be read")
		}
		hexes = f.Value["hex"]
		for _, h := range f.File["file"] {
			part, err := h.Open()
			if err != nil {
				return nil, badQuote("quote-form", "the form's file cannot be read")
			}
			b, err := io.ReadAll(io.LimitReader(part, maxQuoteFile+1))
			if err = errors.Join(err, part.Close()); err != nil {
				return nil, badQuote("quote-form", "the form's file cannot be read")
			}
			files = append(files, string(b))
		}
	case "application/x-www-form-urlencoded":
		v, err := url.ParseQuery(string(in.RawBody))
		if err != nil {
			return nil, badQuote("quote-form", "the form cannot be read")
		}
		hexes = v["hex"]
	default:
		var b struct {
			Hex *string `json:"hex"`
		}
		if err := json.Unmarshal(in.RawBody, &b); err != nil {
			return nil, badQuote("quote-form", `want {"hex": "..."}, or a form with hex or file`)
		}
		if b.Hex != nil {
			hexes = []string{*b.Hex}
		}
	}
	hexes = slices.DeleteFunc(hexes, func(h string) bool { return h == "" })
	if len(hexes)+len(files) != 1 {
		return nil, badQuote("quote-form", "want exactly one quote: hex, or a file", "send the bytes of the quote as file, or their hex as hex")
	}
	if len(files) == 1 {
		return []byte(files[0]), nil
	}
	return fromHex(hexes[0])
}

// fromHex reads hex as people paste it: 0x and white space are no part of it.
func fromHex(h string) ([]byte, error) {
	h = strings.Map(func(r rune) rune {
		if unicode.IsSpace(r) {
			return -1
		}
		return r
	}, h)
	h = strings.TrimPrefix(strings.TrimPrefix(h, "0x"), "0X")
	if len(h) > maxQuoteFile {
		return nil, badQuote("quote-too-large", "this is too large for a quote")
	}
	b, err := hex.DecodeString(h)
	if err != nil || len(b) == 0 {
		return nil, badQuote("quote-hex", "hex is not the hex of a quote")
	}
	return b, nil
}

func (s *Server) verifyQuote(ctx context.Context, in *quoteInput) (out cloudapi.QuoteVerification, err error) {
	if err := s.take(ctx, limitQuotes(), s.caller(ctx)); err != nil {
		return out, err
	}
	raw, err := in.bytes()
	if err != nil {
		return out, err
	}
	j, err := s.judge.quote(ctx, raw, false)
	switch {
	case err != nil && cvm.CodeOf(err) == cvm.Invalid:
		return out, badQuote(cvm.ReasonOf(err), err.Error(), "send a TDX quote as the guest gives it; for other evidence: phala evidence check")
	case err != nil:
		return out, err
	case !j.genuine:
		return out, badQuote("quote-not-genuine", "no admitted vendor stands behind this quote: "+j.complaints, "nothing of it is to be believed")
	}
	set, err := evidence.EncodeCollateral(j.set)
	if err != nil {
		return out, err
	}
	device := sha(j.ppid)
	a, err := s.store.PutAttestation(ctx, store.Attestation{Checksum: j.checksum(), Verified: j.report.Verified(), TCBStatus: j.report.TCBStatus, Summary: j.report.Summary,
		PPID: hex.EncodeToString(j.ppid), DeviceID: hex.EncodeToString(device[:]), Quote: j.raw, Collateral: set})
	if err != nil {
		return out, err
	}
	return s.verification(a)
}

// caller is the address that a request comes from.
func (s *Server) caller(ctx context.Context) string {
	hc := requestOf(ctx)
	if hc == nil {
		return ""
	}
	return s.address(hc.RemoteAddr(), hc.Header("X-Forwarded-For"))
}

// verification shows a stored quote with its verdict.
func (s *Server) verification(a store.Attestation) (out cloudapi.QuoteVerification, err error) {
	q, err := tdx.ParseQuote(a.Quote)
	if err != nil {
		return out, err
	}
	set, err := collateralView(a.Collateral)
	if err != nil {
		return out, err
	}
	out = cloudapi.QuoteVerification{ID: a.Checksum, Success: a.Verified, Checksum: ptr(a.Checksum), CanDownload: ptr(true), UploadedAt: ptr(stamp(a.CreatedAt)),
		VerifiedAt: ptr(stamp(a.VerifiedAt)), Quote: quoteView(q, a.Quote, a.Verified), QuoteCollateral: set, TCBStatus: a.TCBStatus, Summary: a.Summary}
	p := &cloudapi.NodeProvider{PPID: a.PPID}
	for _, n := range s.nodes.list {
		if info, _, _ := n.facts(); a.Verified && info.DeviceID.String() == a.DeviceID {
			out.ProofOfCloud, p.ProofOfCloud, p.Provider = true, true, ptr(n.name())
		}
	}
	out.NodeProvider = p
	return out, nil
}

// ChecksumInput names a quote in the path.
type ChecksumInput struct {
	Checksum string `path:"checksum" doc:"hex sha256 of the quote"`
}

var checksumForm = regexp.MustCompile(`^[0-9a-f]{64}$`)

func (s *Server) attested(ctx context.Context, in ChecksumInput) (a store.Attestation, err error) {
	sum := bare(in.Checksum)
	err = store.ErrNotFound
	if checksumForm.MatchString(sum) {
		a, err = s.store.Attestation(ctx, sum)
	}
	if errors.Is(err, store.ErrNotFound) {
		return a, fail(http.StatusNotFound, "", cvm.NotFound, "quote-not-found", "no quote with this checksum was verified here", "verify it: POST /attestations/verify")
	}
	return a, err
}

func (s *Server) viewQuote(ctx context.Context, in *ChecksumInput) (out cloudapi.QuoteVerification, err error) {
	a, err := s.attested(ctx, *in)
	if err != nil {
		return out, err
	}
	return s.verification(a)
}

func (s *Server) recentQuotes(ctx context.Context, in *struct {
	Skip  int `query:"skip" default:"0" minimum:"0" maximum:"1000000"`
	Limit int `query:"limit" default:"20" minimum:"1" maximum:"100"`
}) ([]cloudapi.RecentQuote, error) {
	list, err := s.store.RecentAttestations(ctx, in.Skip, in.Limit)
	out := make([]cloudapi.RecentQuote, 0, len(list))
	for _, a := range list {
		v := cloudapi.RecentQuote{Checksum: a.Checksum, CreatedAt: stamp(a.CreatedAt)}
		if a.Verified {
			v.Verified = 1
		}
		out = append(out, v)
	}
	return out, err
}

// quoteFile serves a part of a stored quote as a file.
func (s *Server) quoteFile(api huma.API, method, path, summary, kind string, part func(huma.Context, store.Attestation) []byte) {
	o := op{method: method, path: path, summary: summary}
	h := huma.Operation{
		OperationID: operationID(o), Method: method, Path: cloudapi.Prefix + path, Summary: summary, Tags: []string{"attestations"},
		Responses: map[string]*huma.Response{
			"200":     {Description: "OK", Content: map[string]*huma.MediaType{kind: {}}},
			"default": {Description: "Error", Content: map[string]*huma.MediaType{"application/json": {Schema: &huma.Schema{Ref: "#/components/schemas/Error"}}}},
		},
	}
	if !s.guard(&h, open()) {
		return
	}
	huma.Register(api, h, func(ctx context.Context, in *ChecksumInput) (*huma.StreamResponse, error) {
		a, err := s.attested(ctx, *in)
		if err != nil {
			return nil, s.answer(ctx, err)
		}
		return &huma.StreamResponse{Body: func(hc huma.Context) {
			hc.SetHeader("Content-Type", kind)
			hc.SetHeader("X-Content-Type-Options", "nosniff")
			_, _ = hc.BodyWriter().Write(part(hc, a))
		}}, nil
	})
}

func collateralFile(hc huma.Context, a store.Attestation) []byte {
	hc.SetHeader("Cache-Control", "public, max-age=86400")
	hc.SetHeader("ETag", `"`+a.Checksum+`"`)
	return a.Collateral
}

func rawFile(hc huma.Context, a store.Attestation) []byte {
	hc.SetHeader("Content-Disposition", "attachment; filename="+a.Checksum+".bin")
	return a.Quote
}

func (s *Server) publicNodes(ctx context.Context, _ *none) ([]cloudapi.NodeRef, error) {
	known, err := s.store.PPIDs(ctx)
	if err != nil {
		return nil, err
	}
	out := []cloudapi.NodeRef{}
	for _, n := range s.nodes.list {
		r := *s.nodeRef(n.id)
		r.PPID = opt(known[word(r.DeviceID)])
		out = append(out, r)
	}
	return out, nil
}

func (s *Server) deviceIDs(ctx context.Context, in *none) ([]string, error) {
	return s.eachNode(ctx, in, func(r cloudapi.NodeRef) *string { return r.DeviceID })
}

func (s *Server) ppids(ctx context.Context, in *none) ([]string, error) {
	return s.eachNode(ctx, in, func(r cloudapi.NodeRef) *string { return r.PPID })
}

func (s *Server) eachNode(ctx context.Context, in *none, of func(cloudapi.NodeRef) *string) ([]string, error) {
	nodes, err := s.publicNodes(ctx, in)
	out := []string{}
	for _, n := range nodes {
		if v := of(n); v != nil {
			out = append(out, *v)
		}
	}
	return out, err
}
