package api

import (
	"context"
	"net/http"
	"reflect"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humachi"
	"github.com/go-chi/chi/v5"

	"github.com/confidential-cloud/phala/api/cloudapi"
	"github.com/confidential-cloud/phala/api/store"
)

// maxRequest bounds request bodies, in bytes: an app-compose and an environment of
// 1 MiB in hex fit.
const maxRequest = 8 << 20

type none struct{}

type reply[T any] struct {
	Status int
	Body   T
}

// op describes one operation.
type op struct {
	method, path, summary string
	status                int // of success; 200 when zero
	as                    any // documents the answer when the handler returns any
	access
}

// register adds an operation under /api/v1. fn's answer is the body; nil bodies
// with status 204 are empty.
func register[I, O any](s *Server, api huma.API, o op, fn func(context.Context, *I) (O, error)) {
	h, status, ok := s.operation(api, o)
	if !ok {
		return
	}
	if status == http.StatusNoContent {
		huma.Register(api, h, func(ctx context.Context, in *I) (*struct{}, error) {
			if _, err := fn(ctx, in); err != nil {
				return nil, s.refuse(ctx, err)
			}
			if err := s.audited(ctx); err != nil {
				return nil, s.answer(ctx, err)
			}
			return nil, nil
		})
		return
	}
	huma.Register(api, h, func(ctx context.Context, in *I) (*reply[O], error) {
		out, err := fn(ctx, in)
		if err != nil {
			return nil, s.refuse(ctx, err)
		}
		if err := s.audited(ctx); err != nil {
			return nil, s.answer(ctx, err)
		}
		return &reply[O]{Status: status, Body: out}, nil
	})
}

// streamed adds an operation whose answer, in JSON, is written as it is made.
func streamed[I any](s *Server, api huma.API, o op, fn func(context.Context, *I) (func(huma.Context), error)) {
	h, _, ok := s.operation(api, o)
	if !ok {
		return
	}
	huma.Register(api, h, func(ctx context.Context, in *I) (*huma.StreamResponse, error) {
		write, err := fn(ctx, in)
		if err != nil {
			return nil, s.refuse(ctx, err)
		}
		return &huma.StreamResponse{Body: func(hc huma.Context) {
			hc.SetHeader("Content-Type", "application/json")
			write(hc)
		}}, nil
	})
}

// operation describes an operation and who may use it, with its status of success; not
// ok if it is not to be there.
func (s *Server) operation(api huma.API, o op) (h huma.Operation, status int, ok bool) {
	tag, _, _ := strings.Cut(strings.TrimPrefix(o.path, "/"), "/")
	h = huma.Operation{
		OperationID: operationID(o), Method: o.method, Path: cloudapi.Prefix + o.path, Summary: o.summary,
		Tags: []string{tag}, DefaultStatus: o.status, MaxBodyBytes: maxRequest,
		Responses: map[string]*huma.Response{"default": {
			Description: "Error",
			Content:     map[string]*huma.MediaType{"application/json": {Schema: &huma.Schema{Ref: "#/components/schemas/Error"}}},
		}},
	}
	if !s.guard(&h, o.access) {
		return h, 0, false
	}
	status = http.StatusOK
	if o.status != 0 {
		status = o.status
	}
	if o.as != nil {
		schema := api.OpenAPI().Components.Schemas.Schema(reflect.TypeOf(o.as), true, "")
		h.Responses[code(status)] = &huma.Response{Description: http.StatusText(status), Content: map[string]*huma.MediaType{"application/json": {Schema: schema}}}
	}
	return h, status, true
}

func code(status int) string {
	return string([]byte{byte('0' + status/100), byte('0' + status/10%10), byte('0' + status%10)})
}

func operationID(o op) string {
	clean := strings.NewReplacer("/", "-", "{", "", "}", "", "_", "-", ".", "-").Replace(o.path)
	return strings.ToLower(o.method) + clean
}

func (s *Server) routes(mux *chi.Mux) huma.API {
	cfg := huma.DefaultConfig("Phala Cloud API", cloudapi.VersionCurrent)
	cfg.CreateHooks = nil // no $schema in bodies
	cfg.DocsPath, cfg.SchemasPath = "", ""
	cfg.OpenAPIPath = cloudapi.Prefix + "/openapi"
	cfg.Transformers = []huma.Transformer{shape(s.log)}
	cfg.Info.Description = "The cloud control plane. Error bodies are {\"detail\": ...}: text, a list of validation problems (422), or a structured error with error_code, message and suggestions."
	cfg.AllowAdditionalPropertiesByDefault = true // clients send more than we read
	cfg.Components.Schemas = huma.NewMapRegistry("#/components/schemas/", schemaName)
	cfg.Components.SecuritySchemes = map[string]*huma.SecurityScheme{"key": {Type: "apiKey", In: "header", Name: "X-API-Key"}}
	api := humachi.New(mux, cfg)
	api.OpenAPI().Components.Schemas.Map()["Error"] = errorSchema(api.OpenAPI().Components.Schemas)
	api.UseMiddleware(s.origin, s.authenticate, s.idempotent)
	s.catalogueRoutes(api)
	s.cvmRoutes(api)
	s.guestRoutes(api)
	s.appRoutes(api)
	s.changeRoutes(api)
	s.consoleRoutes(api)
	s.accountRoutes(api)
	s.auditRoutes(api)
	s.webhookRoutes(api)
	s.billingRoutes(api)
	s.nodeRoutes(api)
	s.publicRoutes(api)
	s.pages(mux)
	s.reference(mux, api)
	mux.Get("/health", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("ok\n")) })
	mux.NotFound(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusNotFound)
		_, _ = w.Write([]byte(`{"detail":"Not Found"}` + "\n"))
	})
	mux.MethodNotAllowed(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusMethodNotAllowed)
		_, _ = w.Write([]byte(`{"detail":"Method Not Allowed"}` + "\n"))
	})
	return api
}

// schemaName keeps huma's own error types, which are never sent (see shape), apart
// from ours of the same name.
func schemaName(t reflect.Type, hint string) string {
	name := huma.DefaultSchemaNamer(t, hint)
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if strings.HasSuffix(t.PkgPath(), "/huma/v2") {
		return "Huma" + name
	}
	return name
}

func errorSchema(r huma.Registry) *huma.Schema {
	return &huma.Schema{Type: "object", Required: []string{"detail"}, Properties: map[string]*huma.Schema{"detail": {OneOf: []*huma.Schema{
		{Type: "string"},
		{Type: "array", Items: r.Schema(reflect.TypeFor[cloudapi.Validation](), true, "")},
		r.Schema(reflect.TypeFor[cloudapi.ErrorDetail](), true, ""),
	}}}}
}

func (s *Server) catalogueRoutes(api huma.API) {
	register(s, api, op{method: "GET", path: "/auth/me", summary: "Who the key belongs to", access: access{role: store.Viewer, scope: "user:read", unready: true}, as: cloudapi.CurrentUser{}}, s.me)
	register(s, api, op{method: "GET", path: "/nodes", summary: "Nodes with room", as: cloudapi.AvailableNodes{}, access: reads("nodes")}, s.availableNodes)
	register(s, api, op{method: "GET", path: "/teepods/available", summary: "Nodes with room", as: cloudapi.AvailableNodes{}, access: reads("nodes")}, s.availableNodes)
	register(s, api, op{method: "GET", path: "/workspaces/{slug}/nodes", summary: "The workspace's nodes", access: reads("nodes")}, s.workspaceNodes)
	register(s, api, op{method: "GET", path: "/instance-types", summary: "Sizes and prices", access: open()}, s.instanceTypes)
	register(s, api, op{method: "GET", path: "/instance-types/{family}", summary: "Sizes of a family", access: open()}, s.instanceFamily)
	register(s, api, op{method: "GET", path: "/os-images", summary: "Guest images", access: reads("nodes")}, s.osImages)
	register(s, api, op{method: "GET", path: "/kms", summary: "Key management services", access: reads("nodes")}, s.kmsList)
	register(s, api, op{method: "GET", path: "/kms/{kms}", summary: "One KMS", access: reads("nodes")}, s.kmsOne)
	register(s, api, op{method: "GET", path: "/kms/{kms}/info", summary: "One KMS, inspected now", access: reads("nodes")}, s.kmsInfo)
	register(s, api, op{method: "GET", path: "/kms/{kms}/pubkey/{app_id}", summary: "An app's environment key, signed by the KMS", access: reads("nodes")}, s.envKey)
	register(s, api, op{method: "GET", path: "/kms/on-chain/{chain}", summary: "The chain and its contracts", access: reads("nodes")}, s.onChain)
	trust := op{method: "GET", path: "/trust-profile", access: open()}
	h := huma.Operation{
		OperationID: operationID(trust), Method: trust.method, Path: cloudapi.Prefix + trust.path, Tags: []string{"trust-profile"},
		Summary:   "What a verifier pins, as the file that phala verify --trust reads (compare it with a copy from elsewhere)",
		Responses: map[string]*huma.Response{"200": {Description: "OK", Content: map[string]*huma.MediaType{"text/plain": {}}}},
	}
	if s.guard(&h, trust.access) {
		huma.Register(api, h, s.trustProfile)
	}
}

func (s *Server) cvmRoutes(api huma.API) {
	register(s, api, op{method: "POST", path: "/cvms/provision", summary: "Prepare a CVM: exact app-compose and its hash", access: writes("cvms")}, s.provision)
	register(s, api, op{method: "POST", path: "/cvms", summary: "Create a prepared CVM", access: writes("cvms")}, s.commit)
	streamed(s, api, op{method: "GET", path: "/cvms", summary: "All CVMs", access: reads("cvms"), as: []cloudapi.CVMInfo{}}, s.listCVMs)
	register(s, api, op{method: "GET", path: "/cvms/paginated", summary: "CVMs by page", access: reads("cvms"), as: cloudapi.Page[cloudapi.CVMInfo]{}}, s.pageCVMs)
	register(s, api, op{method: "POST", path: "/status/batch", summary: "The status of several CVMs", access: reads("cvms")}, s.statusBatch)
	register(s, api, op{method: "GET", path: "/cvms/{id}", summary: "One CVM", access: reads("cvms"), as: cloudapi.CVMDetail{}}, s.getCVM)
	register(s, api, op{method: "DELETE", path: "/cvms/{id}", summary: "Delete a CVM", access: writes("cvms"), status: 204}, s.deleteCVM)
	for _, verb := range []string{"start", "stop", "shutdown", "restart"} {
		register(s, api, op{method: "POST", path: "/cvms/{id}/" + verb, summary: verb + " a CVM", access: writes("cvms")}, s.power(verb))
	}
	register(s, api, op{method: "GET", path: "/cvms/{id}/compose_file", summary: "The app-compose", access: reads("cvms"), as: map[string]any{}}, s.getCompose)
	register(s, api, op{method: "POST", path: "/cvms/{id}/compose_file/provision", summary: "Prepare a new app-compose", access: writes("cvms")}, s.provisionCompose)
	register(s, api, op{method: "PATCH", path: "/cvms/{id}/compose_file", summary: "Apply a prepared app-compose", access: writes("cvms"), status: 202}, s.updateCompose)
	register(s, api, op{method: "PATCH", path: "/cvms/{id}/envs", summary: "Replace the environment", access: writes("cvms"), status: 202}, s.updateEnvs)
	register(s, api, op{method: "GET", path: "/cvms/{id}/events", summary: "What happened to a CVM", access: reads("cvms")}, s.events)
	s.stream(api, "/cvms/{id}/progress", "Events of a CVM as they happen, until it rests (SSE: event, done)", s.progress)
	s.stream(api, "/cvms/{id}/state", "The state of a CVM; with target, a stream of states (SSE: state, complete, timeout, error)", s.state)
}

func (s *Server) guestRoutes(api huma.API) {
	register(s, api, op{method: "GET", path: "/cvms/{id}/composition", summary: "The app's containers", access: reads("cvms")}, s.composition)
	register(s, api, op{method: "GET", path: "/cvms/{id}/containers", summary: "The app's containers", access: reads("cvms")}, s.composition)
	register(s, api, op{method: "GET", path: "/cvms/{id}/stats", summary: "The guest's system information", access: reads("cvms")}, s.stats)
	register(s, api, op{method: "GET", path: "/cvms/{id}/network", summary: "Where the app is reached", access: reads("cvms")}, s.network)
	register(s, api, op{method: "GET", path: "/cvms/{id}/attestation", summary: "The guest's evidence, summarized", access: reads("cvms")}, s.attestation)
	s.stream(api, "/cvms/{id}/logs", "A container's log (text)", s.logs)
	s.stream(api, "/cvms/{id}/serial-logs", "The guest's console (text)", s.serialLogs)
}

func (s *Server) appRoutes(api huma.API) {
	register(s, api, op{method: "GET", path: "/apps", summary: "Apps by page", access: reads("apps")}, s.apps)
	register(s, api, op{method: "GET", path: "/apps/{app_id}", summary: "One app", access: reads("apps")}, s.app)
	register(s, api, op{method: "GET", path: "/apps/{app_id}/cvms", summary: "An app's CVMs", access: reads("apps"), as: []cloudapi.CVMInfo{}}, s.appCVMs)
	register(s, api, op{method: "GET", path: "/apps/{app_id}/revisions", summary: "What an app was told to run", access: reads("apps")}, s.revisions)
}
