package gateway

import (
	"github.com/prometheus/client_golang/prometheus"
)

// metrics of one gateway, in a registry of its own. The app label takes ids of
// apps that the KMS signed a ticket for, so strangers cannot make series.
type metrics struct {
	registry      *prometheus.Registry
	streams       *prometheus.CounterVec // app, mode
	bytes         *prometheus.CounterVec // app, direction
	refused       *prometheus.CounterVec // reason
	registrations *prometheus.CounterVec // result
}

func newMetrics(g *Gateway) *metrics {
	m := &metrics{
		registry: prometheus.NewRegistry(),
		streams: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "phala_gateway_streams_total", Help: "Streams carried to an app."}, []string{"app", "mode"}),
		bytes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "phala_gateway_bytes_total", Help: "Bytes carried: in is from clients to the app."}, []string{"app", "direction"}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "phala_gateway_refused_total", Help: "Streams not carried, by reason."}, []string{"reason"}),
		registrations: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "phala_gateway_registrations_total", Help: "Registrations of guests, by result."}, []string{"result"}),
	}
	m.registry.MustRegister(m.streams, m.bytes, m.refused, m.registrations,
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "phala_gateway_connections", Help: "Client connections open now."},
			func() float64 { return float64(g.streams.open()) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "phala_gateway_routes", Help: "Live routes."},
			func() float64 { return float64(g.table.Len()) }))
	return m
}
