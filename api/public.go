package api

import "github.com/danielgtaylor/huma/v2"

// publicRoutes are the rest of the public contract: what is known about apps, the
// host's side of a CVM, evidence, and what older clients call.
func (s *Server) publicRoutes(api huma.API) {
	s.appFactRoutes(api)
	s.hostRoutes(api)
	s.legacyRoutes(api)
	s.attestationRoutes(api)
	s.appAttestRoutes(api)
	s.domainRoutes(api)
}
