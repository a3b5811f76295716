package main

import (
	"net/http"
	"strconv"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
	exporter "go.opentelemetry.io/otel/exporters/prometheus"
	sdk "go.opentelemetry.io/otel/sdk/metric"
)

// web answers after five milliseconds. `labels` says which metrics there are of it: those of client_golang's own handlers (`code`),
// of a middleware of gin with names and labels of its own (`status`), or of OpenTelemetry's handler (`otel`).
func web(name, labels string) http.Handler {
	var faults faults
	router := gin.New()
	registry := prometheus.DefaultRegisterer
	inFlight := prometheus.NewGauge(prometheus.GaugeOpts{Name: map[string]string{
		"code": "http_requests_in_flight", "status": "http_inflight_requests", "otel": "http_server_active_requests"}[labels]})
	registry.MustRegister(inFlight)
	if labels == "status" {
		router.Use(middleware(registry))
	}
	faults.serve(router)
	router.GET("/", func(context *gin.Context) {
		time.Sleep(faults.delay(5 * time.Millisecond))
		context.Header("x-pod", name)
		if faults.fail.Load() > 0 {
			context.String(http.StatusServiceUnavailable, "out of order")
			return
		}
		context.String(http.StatusOK, "served by "+name)
	})
	var handler http.Handler = router
	switch labels {
	case "code":
		handler = clientGolang(registry, router)
	case "otel":
		reader, err := exporter.New(exporter.WithRegisterer(registry))
		if err != nil {
			panic(err)
		}
		handler = otelhttp.NewHandler(router, "web", otelhttp.WithMeterProvider(sdk.NewMeterProvider(sdk.WithReader(reader))))
	}
	mux := http.NewServeMux()
	mux.Handle("/metrics", promhttp.Handler())
	mux.Handle("/", promhttp.InstrumentHandlerInFlight(inFlight, handler))
	return mux
}

func clientGolang(registry prometheus.Registerer, handler http.Handler) http.Handler {
	requests := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "http_requests_total"}, []string{"code", "method"})
	duration := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "http_request_duration_seconds"}, []string{"code", "method"})
	registry.MustRegister(requests, duration)
	return promhttp.InstrumentHandlerCounter(requests, promhttp.InstrumentHandlerDuration(duration, handler))
}

func middleware(registry prometheus.Registerer) gin.HandlerFunc {
	requests := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "http_requests_total"}, []string{"method", "path", "status"})
	duration := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "http_request_duration_seconds"}, []string{"path"})
	registry.MustRegister(requests, duration)
	return func(context *gin.Context) {
		begun := time.Now()
		context.Next()
		requests.WithLabelValues(context.Request.Method, context.FullPath(), strconv.Itoa(context.Writer.Status())).Inc()
		duration.WithLabelValues(context.FullPath()).Observe(time.Since(begun).Seconds())
	}
}
