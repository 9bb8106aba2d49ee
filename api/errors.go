package api

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/confidential-cloud/phala/api/cloudapi"
	"github.com/confidential-cloud/phala/api/store"
	"github.com/confidential-cloud/phala/cvm"
)

// Codes of the public error catalogue that this API uses.
const (
	errNodeNotFound   = "ERR-01-001"
	errNoCompose      = "ERR-01-002"
	errBadCompose     = "ERR-01-003"
	errDuplicateName  = "ERR-01-004"
	errNeedsChain     = "ERR-01-005"
	errHashUnknown    = "ERR-01-006"
	errInstanceType   = "ERR-02-001"
	errNoResources    = "ERR-02-002"
	errBadRequest     = "ERR-02-008"
	errImageNotFound  = "ERR-02-010"
	errKMSNotFound    = "ERR-02-011"
	errNodeCapacity   = "ERR-02-014"
	errCVMNotFound    = "ERR-03-001"
	errAppIDConflict  = "ERR-03-007"
	errSeveralCVMs    = "ERR-03-010"
	errBalance        = "ERR-04-001"
	errMaxCVMs        = "ERR-04-002"
	errLimits         = "ERR-04-003"
	statusNeedsChain  = 465
	statusHashUnknown = 466
)

// apiError is an error answer: {"detail": ...}.
type apiError struct {
	status int
	Detail any `json:"detail"`
}

func (e *apiError) Error() string {
	b, _ := json.Marshal(e.Detail) // details are plain values
	return string(b)
}

// GetStatus is huma.StatusError.
func (e *apiError) GetStatus() int { return e.status }

// fail makes a structured error.
func fail(status int, code string, word cvm.Code, reason, message string, fixes ...string) *apiError {
	return &apiError{status, cloudapi.ErrorDetail{ErrorCode: code, Message: message, Suggestions: fixes, Code: word, Reason: reason}}
}

// text makes a plain error, the shape of 401 and 403.
func text(status int, message string) *apiError { return &apiError{status, message} }

// problems collects what is wrong with a request; all of it is told at once.
type problems []cloudapi.Validation

func (p *problems) add(field, typ, msg, fix string) {
	loc := []any{"body"}
	for f := range strings.SplitSeq(field, ".") {
		loc = append(loc, f)
	}
	*p = append(*p, cloudapi.Validation{Loc: loc, Msg: msg, Type: typ, Fix: fix})
}

func (p problems) err() error {
	if len(p) == 0 {
		return nil
	}
	return &apiError{http.StatusUnprocessableEntity, []cloudapi.Validation(p)}
}

// missing is the one answer for a CVM that does not exist and for one that belongs
// to somebody else.
func missing() error {
	return fail(http.StatusNotFound, errCVMNotFound, cvm.NotFound, "cvm-not-found", "CVM not found", "list yours: phala cvms list")
}

// answer maps any error of a handler to an error answer, and logs what people
// must not see.
func (s *Server) answer(ctx context.Context, err error) error {
	var done *apiError
	var coded *cvm.Error
	var over *store.LimitError
	switch {
	case errors.As(err, &done):
		return done
	case errors.Is(err, store.ErrNotFound):
		return missing()
	case errors.As(err, &over):
		return overLimit(over)
	case errors.Is(err, store.ErrNameTaken):
		return fail(http.StatusConflict, errDuplicateName, cvm.Conflict, "name-taken", "a CVM with this name exists already",
			"choose another name, or update the existing one: phala deploy --cvm-id and its name")
	case errors.Is(err, store.ErrAppTaken):
		return fail(http.StatusConflict, errAppIDConflict, cvm.Conflict, "app-taken", "this app id is in use", "register a new app, or check the app id")
	case errors.As(err, &coded) && coded.Code != cvm.Internal:
		var fixes []string
		if coded.Fix != "" {
			fixes = []string{coded.Fix}
		}
		return fail(statusOf(coded.Code), codeOfReason(coded.Reason), coded.Code, coded.Reason, coded.Message, fixes...)
	case ctx.Err() != nil:
		return text(499, "the client went away")
	}
	s.log.Error("request failed", "err", err)
	return fail(http.StatusInternalServerError, "", cvm.Internal, "internal", "internal error (see the cloud API's log)")
}

func codeOfReason(reason string) string {
	switch reason {
	case "no-capacity":
		return errNodeCapacity
	case "no-nodes":
		return errNoResources
	case "image-not-found":
		return errImageNotFound
	case "node-not-found":
		return errNodeNotFound
	case "compose-invalid":
		return errBadCompose
	}
	return ""
}

func statusOf(c cvm.Code) int {
	switch c {
	case cvm.Invalid:
		return http.StatusUnprocessableEntity
	case cvm.Unauthenticated:
		return http.StatusUnauthorized
	case cvm.Denied:
		return http.StatusForbidden
	case cvm.NotFound:
		return http.StatusNotFound
	case cvm.Conflict, cvm.Exhausted:
		return http.StatusConflict
	case cvm.Precondition:
		return http.StatusPreconditionFailed
	case cvm.Unavailable:
		return http.StatusServiceUnavailable
	case cvm.Unsupported:
		return http.StatusNotImplemented
	}
	return http.StatusInternalServerError
}

// shape turns huma's own errors (validation of requests, mostly) into the public
// contract's. It is the only place that knows huma's error type.
func shape(log *slog.Logger) huma.Transformer {
	return func(_ huma.Context, _ string, v any) (any, error) {
		m, ok := v.(*huma.ErrorModel)
		if !ok {
			return v, nil
		}
		if m.Status >= 500 {
			log.Error("request failed", "err", m.Detail)
			return &apiError{m.Status, "internal error (see the cloud API's log)"}, nil
		}
		if m.Status != http.StatusUnprocessableEntity && len(m.Errors) == 0 {
			return &apiError{m.Status, m.Detail}, nil
		}
		out := make([]cloudapi.Validation, 0, len(m.Errors)+1)
		for _, e := range m.Errors {
			out = append(out, cloudapi.Validation{Loc: location(e.Location), Msg: e.Message, Type: "value_error"})
		}
		if len(out) == 0 {
			out = append(out, cloudapi.Validation{Loc: []any{"body"}, Msg: m.Detail, Type: "value_error"})
		}
		return &apiError{m.Status, out}, nil
	}
}

// plainJSON names errors application/json, as the public API does; huma's own word
// (problem+json) is for another shape.
func plainJSON(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { next.ServeHTTP(plainWriter{w}, r) })
}

type plainWriter struct{ http.ResponseWriter }

func (w plainWriter) WriteHeader(status int) {
	if w.Header().Get("Content-Type") == "application/problem+json" {
		w.Header().Set("Content-Type", "application/json")
	}
	w.ResponseWriter.WriteHeader(status)
}

// Unwrap lets http.ResponseController flush.
func (w plainWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// location turns "body.items[3].name" into ["body", "items", 3, "name"].
func location(s string) []any {
	var loc []any
	for part := range strings.FieldsFuncSeq(s, func(r rune) bool { return r == '.' || r == '[' || r == ']' }) {
		var n int
		if json.Unmarshal([]byte(part), &n) == nil {
			loc = append(loc, n)
			continue
		}
		loc = append(loc, part)
	}
	return loc
}
