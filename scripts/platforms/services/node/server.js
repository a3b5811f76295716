// A service as users write them: express, and prom-client with its default metrics. server.js NAME ADDRESS PORT
//
// PUT /fault/KIND/VALUE spoils the instance: `block` holds the event loop for so many milliseconds of every hundred, `slow` takes
// milliseconds more without holding it, `fail` answers 503.
"use strict";
const express = require("express");
const prometheus = require("prom-client");

const [name, address, port] = process.argv.slice(2);
prometheus.collectDefaultMetrics();
const duration = new prometheus.Histogram({
  name: "http_request_duration_seconds",
  help: "Time to answer, by route and status.",
  labelNames: ["method", "route", "status_code"],
});
const faults = { block: 0, slow: 0, fail: 0 };
setInterval(() => {
  const end = performance.now() + faults.block;
  while (performance.now() < end);
}, 100);

const app = express();
app.get("/metrics", async (_, response) => {
  response.type(prometheus.register.contentType).send(await prometheus.register.metrics());
});
app.put("/fault/:kind/:value", (request, response) => {
  faults[request.params.kind] = Number(request.params.value);
  response.end();
});
app.get("/", (request, response) => {
  const ended = duration.startTimer({ method: request.method, route: "/" });
  setTimeout(() => {
    response.set("x-pod", name).status(faults.fail ? 503 : 200).send(`served by ${name}`);
    ended({ status_code: response.statusCode });
  }, 5 + faults.slow);
});
app.listen(Number(port), address);
