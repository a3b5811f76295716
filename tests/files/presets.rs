//! The presets: each is an accepted configuration, and each of its queries, evaluated by a real Prometheus that scrapes
//! such metrics, gives every endpoint one value as the filter reads the answer.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use config::{Config, parse};
use engine::settings::Signal;
use evenkeel::discovery::prometheus::{EndpointIndex, request_path};
use testbed::anyhow::{Context, Result, ensure};
use testbed::prometheus::{self, Prometheus};
use testbed::{http, tokio, wait};

use crate::shipped;

const PATIENCE: Duration = Duration::from_secs(60);

fn presets() -> Result<BTreeMap<String, (PathBuf, Config)>> {
    let mut presets = BTreeMap::new();
    for path in shipped::files(&["json"])?
        .into_iter()
        .filter(|path| path.starts_with(shipped::folder().join("presets")))
    {
        let name = path.file_stem().and_then(|name| name.to_str()).context("a name")?.to_owned();
        let config = parse(shipped::text(&path)?.as_bytes());
        let config = config.unwrap_or_else(|faults| panic!("{}: {faults:#?}", path.display()));
        presets.insert(name, (path, config));
    }
    ensure!(presets.len() >= 5, "{}", presets.len());
    Ok(presets)
}

fn signals(config: &Config) -> impl Iterator<Item = &Signal> {
    config.upstreams.iter().flat_map(|upstream| &upstream.signals)
}

#[test]
fn every_preset_is_accepted_and_asks_in_promql() -> Result<()> {
    for (_, config) in presets()?.values() {
        let queries: Vec<String> = signals(config).map(|signal| signal.query.clone()).collect();
        crate::prometheus::check_promql(&queries)?;
    }
    Ok(())
}

/// The metrics of an endpoint's exporter, the first endpoint being the least loaded: gauges as they are, counters with
/// their increase per scrape.
struct Exposition {
    /// The job that scrapes it, and the port at which it is scraped.
    job: &'static str,
    port: u16,
    /// Series of the endpoint with this number, from 1 on, at its IP.
    series: fn(f64, &str) -> Vec<(String, Grows)>,
}

enum Grows {
    Gauge(f64),
    Counter(f64),
}
use Grows::{Counter, Gauge};

fn gauge(series: impl Into<String>, value: f64) -> (String, Grows) {
    (series.into(), Gauge(value))
}

fn counter(series: impl Into<String>, by: f64) -> (String, Grows) {
    (series.into(), Counter(by))
}

/// Buckets of a histogram; the higher its number, the slower the endpoint.
fn histogram(name: &str, labels: &str, number: f64, unit: f64) -> Vec<(String, Grows)> {
    let bucket = |bound: f64| {
        let within = (10.0 / number * bound).min(10.0);
        counter(format!("{name}_bucket{{{labels}le=\"{}\"}}", bound * unit), within)
    };
    let mut all: Vec<_> = [0.1, 0.5, 1.0, 2.0, 5.0].map(bucket).into();
    all.push(counter(format!("{name}_bucket{{{labels}le=\"+Inf\"}}"), 10.0));
    all.push(counter(format!("{name}_sum{{{}}}", labels.trim_end_matches(',')), number * unit));
    all.push(counter(format!("{name}_count{{{}}}", labels.trim_end_matches(',')), 10.0));
    all
}

/// Each instance uses another library: a middleware with its own labels, client_golang's handlers, OpenTelemetry. All
/// have the collectors of client_golang.
fn go_service(number: f64, _: &str) -> Vec<(String, Grows)> {
    let (requests, duration, in_flight, status) = match number {
        1.0 => ("http_requests_total", "http_request_duration_seconds", "http_inflight_requests", "status"),
        2.0 => ("http_requests_total", "http_request_duration_seconds", "http_requests_in_flight", "code"),
        _ => (
            "http_server_request_duration_seconds_count",
            "http_server_request_duration_seconds",
            "http_server_active_requests",
            "http_response_status_code",
        ),
    };
    let labels = format!("{status}=\"200\",");
    let mut all = histogram(duration, if number == 1.0 { "" } else { &labels }, number, 1.0);
    all.extend([
        counter("process_cpu_seconds_total", 0.1 * number),
        gauge(in_flight, 5.0 * number),
        counter("promhttp_metric_handler_requests_total{code=\"200\"}", 1.0),
        gauge("promhttp_metric_handler_requests_in_flight", 1.0),
        gauge("go_goroutines", 20.0 * number),
        gauge("process_resident_memory_bytes", 1e8 * number),
    ]);
    if number < 3.0 {
        all.push(counter(format!("{requests}{{method=\"GET\",{status}=\"200\"}}"), 90.0));
        all.push(counter(format!("{requests}{{method=\"POST\",{status}=\"201\"}}"), 10.0));
    }
    // The first has never failed: the missing series must not make its ratio unknown.
    if number > 1.0 {
        all.push(counter(format!("{requests}{{method=\"GET\",{status}=\"503\"}}"), number));
    }
    all
}

fn node_service(number: f64, _: &str) -> Vec<(String, Grows)> {
    let name = "http_request_duration_seconds";
    let mut all = histogram(name, "method=\"GET\",route=\"/\",status_code=\"200\",", number, 1.0);
    all.extend([
        counter("process_cpu_seconds_total", 0.1 * number),
        gauge("nodejs_eventloop_lag_p90_seconds", 0.01 * number),
        gauge("nodejs_heap_size_used_bytes", 1e7 * number),
        gauge("nodejs_heap_size_total_bytes", 4e7),
        gauge("process_resident_memory_bytes", 1e8 * number),
    ]);
    if number > 1.0 {
        all.push(counter(format!("{name}_count{{method=\"GET\",route=\"/\",status_code=\"503\"}}"), number));
    }
    all
}

/// The first endpoint has neither collected garbage nor failed yet.
fn spring_boot(number: f64, _: &str) -> Vec<(String, Grows)> {
    let labels = |status: u16, uri: &str| {
        format!(
            "{{error=\"none\",exception=\"none\",method=\"GET\",outcome=\"X\",status=\"{status}\",uri=\"{uri}\"}}"
        )
    };
    let name = "http_server_requests_seconds";
    let mut all: Vec<_> = [("/", 10.0), ("/actuator/prometheus", 1000.0 / number)]
        .into_iter()
        .flat_map(|(uri, count)| {
            let labels = labels(200, uri);
            [
                counter(format!("{name}_count{labels}"), count),
                counter(format!("{name}_sum{labels}"), count * number),
            ]
        })
        .collect();
    all.extend([
        gauge("process_cpu_usage", 0.1 * number),
        gauge("jvm_memory_used_bytes{area=\"heap\",id=\"G1 Eden Space\"}", 1e7 * number),
        gauge("jvm_memory_used_bytes{area=\"heap\",id=\"G1 Old Gen\"}", 1e7 * number),
        gauge("jvm_memory_used_bytes{area=\"nonheap\",id=\"Metaspace\"}", 9e7 / number),
        gauge("jvm_memory_max_bytes{area=\"heap\",id=\"G1 Eden Space\"}", -1.0),
        gauge("jvm_memory_max_bytes{area=\"heap\",id=\"G1 Old Gen\"}", 1e8),
        gauge("jvm_memory_max_bytes{area=\"nonheap\",id=\"Metaspace\"}", -1.0),
        gauge("jvm_threads_live_threads", 20.0 * number),
    ]);
    if number > 1.0 {
        let pause = |cause: &str| {
            format!("{{action=\"end of minor GC\",cause=\"{cause}\",gc=\"G1 Young Generation\"}}")
        };
        for cause in ["G1 Evacuation Pause", "G1 Preventive Collection"] {
            all.push(counter(format!("jvm_gc_pause_seconds_sum{}", pause(cause)), 0.01 * number));
        }
        all.push(gauge(
            format!("http_server_requests_active_seconds_count{}", labels(200, "UNKNOWN")),
            number,
        ));
        all.push(counter(format!("{name}_count{}", labels(503, "/")), number));
    }
    all
}

/// The last endpoint uses asynq's exporter, the others metrics of their own.
fn worker(number: f64, _: &str) -> Vec<(String, Grows)> {
    let mut all = histogram("my_service_task_processing_duration_seconds", "", number, 1.0);
    if number < 3.0 {
        all.push(gauge("my_service_task_queue_depth", 10.0 * number));
        all.push(counter("my_service_tasks_processed_total", 5.0));
    } else {
        all.push(gauge("asynq_tasks_enqueued_total{queue=\"default\",state=\"pending\"}", 30.0));
        all.push(gauge("asynq_tasks_enqueued_total{queue=\"default\",state=\"completed\"}", 900.0));
        all.push(counter("asynq_tasks_processed_total{queue=\"default\"}", 5.0));
    }
    all
}

fn vllm(number: f64, _: &str) -> Vec<(String, Grows)> {
    // Two engines of one server: data-parallel ranks report separately.
    let labels = |engine: u8| format!("{{engine=\"{engine}\",model_name=\"m\"}}");
    // The metric was renamed: the first endpoint runs an older version.
    let cache = if number > 1.0 { "vllm:kv_cache_usage_perc" } else { "vllm:gpu_cache_usage_perc" };
    let mut all =
        histogram("vllm:time_to_first_token_seconds", "engine=\"0\",model_name=\"m\",", number, 1.0);
    for (engine, part) in [(0, 1.0), (1, 0.5)] {
        let labels = labels(engine);
        all.extend([
            gauge(format!("vllm:num_requests_waiting{labels}"), number * part),
            gauge(format!("vllm:num_requests_running{labels}"), 3.0 * number * part),
            gauge(format!("{cache}{labels}"), 0.3 * number * part),
        ]);
    }
    all
}

/// The node exporter, cAdvisor and kube-state-metrics in one, including series that the queries must not match: cgroups
/// above a container's, the pause container, pods on the host's network and in other namespaces.
fn node(number: f64, ip: &str) -> Vec<(String, Grows)> {
    let pod = format!("namespace=\"shop\",pod=\"web-{number}\"");
    let cgroup = |container: &str| {
        format!("{{container=\"{container}\",cpu=\"total\",id=\"/kubepods/{container}\",{pod}}}")
    };
    let (meant, throttled) = (cgroup("web"), format!("{{container=\"web\",{pod}}}"));
    let mut all: Vec<_> = ["", "POD", "istio-proxy"]
        .map(|other| counter(format!("container_cpu_usage_seconds_total{}", cgroup(other)), 9.0 - number))
        .into();
    all.extend([
        counter("node_cpu_seconds_total{cpu=\"0\",mode=\"idle\"}", 0.9 / number),
        counter("node_cpu_seconds_total{cpu=\"0\",mode=\"user\"}", 1.0 - 0.9 / number),
        counter("node_cpu_seconds_total{cpu=\"1\",mode=\"idle\"}", 0.9 / number),
        counter("node_cpu_seconds_total{cpu=\"1\",mode=\"iowait\"}", 1.0 - 0.9 / number),
        counter(format!("container_cpu_usage_seconds_total{meant}"), 0.1 * number),
        counter(format!("container_cpu_cfs_throttled_periods_total{throttled}"), number),
        counter(format!("container_cpu_cfs_periods_total{throttled}"), 10.0),
        gauge(format!("kube_pod_info{{{pod},host_ip=\"{ip}\",node=\"n{number}\",pod_ip=\"{ip}\",uid=\"u\"}}"), 1.0),
        gauge("kube_pod_info{namespace=\"shop\",pod=\"web-pending\",host_ip=\"\",node=\"\",pod_ip=\"\",uid=\"v\"}", 1.0),
        gauge(format!("kube_pod_info{{namespace=\"other\",pod=\"web-{number}\",pod_ip=\"10.1.1.1\",uid=\"w\"}}"), 1.0),
    ]);
    all
}

/// Labels name the caller, the protocol and the response; a proxy reports the requests that it sends, too.
fn istio(number: f64, _: &str) -> Vec<(String, Grows)> {
    let service = "destination_service=\"web.shop.svc.cluster.local\",request_protocol=\"http\",";
    let to = format!("reporter=\"destination\",{service}source_workload=\"cart\",");
    let mut all = histogram("istio_request_duration_milliseconds", &to, number, 1000.0);
    for caller in ["cart", "front"] {
        let to = format!("reporter=\"destination\",{service}source_workload=\"{caller}\",");
        all.push(counter(
            format!("istio_requests_total{{{to}response_code=\"200\",response_flags=\"-\"}}"),
            50.0 * number,
        ));
    }
    let from = format!("reporter=\"source\",{service}");
    all.push(counter(
        format!("istio_requests_total{{{from}response_code=\"503\",response_flags=\"UF\"}}"),
        900.0 / number,
    ));
    if number > 1.0 {
        let failed = format!("{to}response_code=\"503\",response_flags=\"URX\"");
        all.push(counter(format!("istio_requests_total{{{failed}}}"), number * number));
    }
    all
}

fn exposition(preset: &str) -> Result<Exposition> {
    Ok(match preset {
        "go-service" => Exposition { job: "my_service", port: 8080, series: go_service },
        "node-service" => Exposition { job: "my_node_service", port: 8080, series: node_service },
        "spring-boot" => Exposition { job: "my_spring_service", port: 8080, series: spring_boot },
        "async-workers" => Exposition { job: "worker_service", port: 8080, series: worker },
        "llm-vllm" => Exposition { job: "vllm", port: 8000, series: vllm },
        "node-and-container-cpu" => Exposition { job: "node", port: 9100, series: node },
        "istio" => Exposition { job: "pods", port: 15020, series: istio },
        other => testbed::anyhow::bail!("no metrics to try the preset {other} with"),
    })
}

/// An exporter that runs until this is dropped.
struct Exporter(Arc<AtomicBool>);

impl Drop for Exporter {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn export(address: SocketAddr, series: Vec<(String, Grows)>) -> Result<Exporter> {
    let listener = TcpListener::bind(address).with_context(|| address.to_string())?;
    let ended = Arc::new(AtomicBool::new(false));
    let end = ended.clone();
    std::thread::spawn(move || {
        let mut scrapes = 0.0;
        for stream in listener.incoming() {
            if end.load(Ordering::Relaxed) {
                return;
            }
            let Ok(mut stream) = stream else { continue };
            let _ = stream.read(&mut [0; 4096]);
            scrapes += 1.0;
            let mut text = String::new();
            for (name, grows) in &series {
                let value = match grows {
                    Gauge(value) => *value,
                    Counter(by) => by * scrapes,
                };
                let _ = writeln!(text, "{name} {value}");
            }
            let head = "HTTP/1.1 200 OK\r\ncontent-type: text/plain; version=0.0.4\r\nconnection: close\r\n";
            let _ = write!(stream, "{head}content-length: {}\r\n\r\n{text}", text.len());
        }
    });
    Ok(Exporter(ended))
}

/// The value of each endpoint, as the filter reads the answer; an error if a sample belongs to no endpoint.
async fn values(server: SocketAddr, signal: &Signal, index: &EndpointIndex) -> Result<Vec<Option<f64>>> {
    let answer = http::get(server, &request_path("", &signal.query, Duration::from_secs(2))).await?;
    let parsed = evenkeel::discovery::prometheus::parse(
        answer.status.as_u16().into(),
        answer.text().as_bytes(),
        &signal.address_label,
    );
    let parsed = parsed.map_err(|fault| testbed::anyhow::anyhow!("{fault:?}"))?;
    let assigned = index.assign(&parsed.samples, signal.port);
    ensure!(assigned.unmatched == 0 && parsed.samples.len() == 3, "{:?}", parsed.samples);
    Ok(assigned.values)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2, crate = "testbed::tokio")]
async fn every_query_gives_each_endpoint_its_value() -> Result<()> {
    // All of 127.0.0.0/8 is loopback: each run has its own network.
    let own = std::process::id();
    let presets = presets()?;
    let (mut jobs, mut exporters, mut indices) = (Vec::new(), Vec::new(), BTreeMap::new());
    for (number, (name, (_, config))) in (0u32..).zip(&presets) {
        let network = format!("127.{}.{}.", 200 + own / 32 % 50, own % 32 * 8 + number);
        let exposition = exposition(name)?;
        let serving =
            config.upstreams[0].endpoints.fixed.first().map_or(8080, |endpoint| endpoint.address.port());
        let (mut targets, mut endpoints) = (Vec::new(), Vec::new());
        for endpoint in 1..=3u8 {
            let ip = format!("{network}{endpoint}");
            let target: SocketAddr = format!("{ip}:{}", exposition.port).parse()?;
            exporters.push(export(target, (exposition.series)(endpoint.into(), &ip))?);
            targets.push(target);
            endpoints.push(format!("{ip}:{serving}").parse::<SocketAddr>()?);
        }
        jobs.push((exposition.job.to_owned(), targets));
        indices.insert(name, EndpointIndex::new(endpoints));
    }
    let server = Prometheus::start(&prometheus::Config { jobs, ..prometheus::Config::default() }).await?;
    let at = server.address();
    for (name, (_, config)) in &presets {
        let index = &indices[name];
        for signal in signals(config) {
            let what =
                format!("{name}: {} to be known of every endpoint, the last being the worst", signal.name);
            let known = || async {
                let values = values(at, signal, index).await.ok()?;
                let [Some(first), Some(second), Some(third)] = values[..] else { return None };
                (first < second && second < third).then_some(())
            };
            if let Err(error) = wait::until(&what, PATIENCE, known).await {
                panic!("{error:#}: {:?}", values(at, signal, index).await);
            }
        }
    }
    Ok(())
}
