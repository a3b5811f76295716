// Services as users write them, for the presets: `services web NAME ADDRESS LABELS` answers requests with gin, `services worker NAME
// ADDRESS REDIS DATABASE` takes tasks, answers 202 and works on them later with asynq. Metrics are what the libraries export.
//
// PUT /fault/KIND/VALUE spoils the instance: `burn` keeps a processor busy, `slow` takes milliseconds more, `fail` answers 503.
package main

import (
	"net/http"
	"os"
	"runtime"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/gin-gonic/gin"
)

type faults struct{ burn, slow, fail atomic.Int64 }

func (faults *faults) serve(router *gin.Engine) {
	router.PUT("/fault/:kind/:value", func(context *gin.Context) {
		value, _ := strconv.ParseInt(context.Param("value"), 10, 64)
		switch context.Param("kind") {
		case "burn":
			faults.burn.Store(value)
		case "slow":
			faults.slow.Store(value)
		case "fail":
			faults.fail.Store(value)
		}
	})
	go func() {
		for {
			if faults.burn.Load() == 0 {
				time.Sleep(50 * time.Millisecond)
				continue
			}
			for begun := time.Now(); time.Since(begun) < 10*time.Millisecond; {
				runtime.Gosched()
			}
		}
	}()
}

func (faults *faults) delay(usual time.Duration) time.Duration {
	return usual + time.Duration(faults.slow.Load())*time.Millisecond
}

func main() {
	gin.SetMode(gin.ReleaseMode)
	name, address := os.Args[2], os.Args[3]
	var handler http.Handler
	if os.Args[1] == "worker" {
		handler = worker(name, os.Args[4], os.Args[5])
	} else {
		handler = web(name, os.Args[4])
	}
	panic(http.ListenAndServe(address, handler))
}
