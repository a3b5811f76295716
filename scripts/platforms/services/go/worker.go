package main

import (
	"context"
	"net/http"
	"strconv"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/hibiken/asynq"
	"github.com/hibiken/asynq/x/metrics"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// worker puts each request into a queue of its own in Redis and works on two tasks at a time, twenty milliseconds each.
func worker(name, redis, database string) http.Handler {
	var faults faults
	number, err := strconv.Atoi(database)
	if err != nil {
		panic(err)
	}
	at := asynq.RedisClientOpt{Addr: redis, DB: number}
	client := asynq.NewClient(at)
	duration := prometheus.NewHistogram(prometheus.HistogramOpts{Name: "my_service_task_processing_duration_seconds"})
	// asynq's own exporter: asynq_queue_size and the rest.
	prometheus.MustRegister(duration, metrics.NewQueueMetricsCollector(asynq.NewInspector(at)))

	server := asynq.NewServer(at, asynq.Config{Concurrency: 2, TaskCheckInterval: 100 * time.Millisecond, LogLevel: asynq.WarnLevel})
	tasks := asynq.NewServeMux()
	tasks.HandleFunc("work", func(context.Context, *asynq.Task) error {
		begun := time.Now()
		time.Sleep(faults.delay(20 * time.Millisecond))
		duration.Observe(time.Since(begun).Seconds())
		return nil
	})
	if err := server.Start(tasks); err != nil {
		panic(err)
	}

	router := gin.New()
	faults.serve(router)
	router.GET("/", func(context *gin.Context) {
		if _, err := client.Enqueue(asynq.NewTask("work", nil)); err != nil {
			context.String(http.StatusServiceUnavailable, err.Error())
			return
		}
		context.Header("x-pod", name)
		context.String(http.StatusOK, "taken by "+name)
	})
	router.GET("/metrics", gin.WrapH(promhttp.Handler()))
	return router
}
