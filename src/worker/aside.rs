//! Standing aside: what the filter does with a refused configuration if the VM's environment says that requests must
//! not suffer from it. Every request passes unbalanced; the log, a metric and the status page say why.

use core::cell::Cell;

use crate::host::event::{Event, Field};
use crate::host::{Host, MetricKind, StreamHost};
use crate::request::Flow;
use crate::request::steering::strip;
use crate::sharing;
use crate::telemetry::envoy_stats::{REFUSED, process_metric};
use crate::telemetry::status::{Route, refused};
use config::{Fault, Legible};
use engine::time::Time;

/// The VM's environment variable for the handling of a refused configuration.
pub const VARIABLE: &str = "EVENKEEL_ON_REFUSED_CONFIGURATION";
const STAND_ASIDE: &str = "stand_aside";
const REFUSE: &str = "refuse";
/// The interval at which the log repeats the faults, by one worker of the process, seconds.
const REPEAT_S: f64 = 60.0;
/// The tick period while standing aside, milliseconds.
pub const TICK_MS: u64 = 5_000;
/// The default steering headers, for a configuration that names none: a client's own must not reach the filters behind.
const DEFAULT_HEADERS: [&str; 2] = ["x-evenkeel-endpoint", "x-envoy-original-dst-host"];

/// Whether to stand aside, by the value of [`VARIABLE`]. An unknown value is logged and counts as `refuse`.
pub fn wanted(host: &dyn Host, value: Option<&str>) -> bool {
    match value {
        None | Some(REFUSE) => false,
        Some(STAND_ASIDE) => true,
        Some(_) => {
            let message =
                format!("{VARIABLE} is neither \"{REFUSE}\" nor \"{STAND_ASIDE}\": taken as \"{REFUSE}\"");
            host.log(log::Level::Error, &message);
            false
        }
    }
}

/// Sets the metric to 0 for an accepted configuration, so that it exists from the start.
pub fn accepted(host: &dyn Host) {
    show(host, 0);
}

fn show(host: &dyn Host, value: u64) {
    if let Some(metric) = host.metric(MetricKind::Gauge, &process_metric(REFUSED)) {
        host.record(metric, value);
    }
}

/// A refused configuration whose requests pass unbalanced.
#[derive(Debug)]
pub struct Aside {
    name: String,
    faults: Vec<Fault>,
    legible: Legible,
    /// Whether an earlier configuration of the same plugin is still in force.
    keeps: bool,
    /// When the faults were last logged, by this worker.
    logged_at: Cell<Time>,
    /// The key of that time in shared data, for all workers of the process.
    key: String,
}

impl Aside {
    /// Stands aside from `json` with these faults; `keeps` if an earlier configuration of plugin `name` stays in force.
    pub fn from(host: &dyn Host, json: &[u8], name: &str, faults: Vec<Fault>, keeps: bool) -> Aside {
        let key = format!("{}/refused", sharing::prefix(name));
        // Nothing is written to shared data here: Envoy tries a configuration in a throwaway VM first.
        let (legible, logged_at) = (config::legible(json), Cell::new(host.now()));
        let aside = Aside { name: name.into(), faults, legible, keeps, logged_at, key };
        aside.log_faults(host);
        show(host, 1);
        aside
    }

    /// Whether it is of plugin `name` and for clusters that `meets` accepts, as far as they can be read: a later configuration
    /// of these is in its place, and the faults are no longer those of the latest one.
    pub fn is_of(&self, name: &str, meets: impl FnOnce(&[String]) -> bool) -> bool {
        self.name == name && (self.legible.clusters.is_empty() || meets(&self.legible.clusters))
    }

    /// The paths of the faults, without the values found there.
    pub fn places(&self) -> Vec<String> {
        self.faults.iter().map(|fault| fault.path.clone()).collect()
    }

    fn log_faults(&self, host: &dyn Host) {
        for fault in &self.faults {
            let message = format!("configuration refused: {fault}");
            host.log_event(&Event {
                level: log::Level::Error,
                name: "configuration_refused",
                message: &message,
                fields: &[("path", Field::Text(&fault.path))],
            });
        }
        let meanwhile = match self.keeps {
            true => "the configuration before it stays in force",
            false => "evenkeel stands aside, requests pass unbalanced",
        };
        host.log(
            log::Level::Error,
            &format!("configuration refused, {} faults: {meanwhile}", self.faults.len()),
        );
    }

    /// Repeats the faults in the log, unless another worker has done so within a minute.
    pub fn tick(&self, host: &dyn Host) {
        let now = host.now();
        let logged_at = host
            .shared_get(&self.key)
            .and_then(|(bytes, _)| Some(u64::from_le_bytes(bytes.try_into().ok()?)));
        let logged_at = Time(logged_at.unwrap_or(0)).max(self.logged_at.get());
        if now >= logged_at && now.seconds_since(logged_at) < REPEAT_S {
            return;
        }
        self.logged_at.set(now);
        let _the_next_worker_logs_it_too = host.shared_set(&self.key, &now.0.to_le_bytes(), None);
        self.log_faults(host);
        show(host, 1);
    }

    /// Request headers: removes the steering header, and answers requests for the status page with the faults.
    pub fn request_headers(&self, host: &dyn StreamHost) -> Flow {
        match &self.legible.steering_header {
            Some(header) => strip(header, host),
            None => DEFAULT_HEADERS.iter().for_each(|header| strip(header, host)),
        }
        let Some(status) = &self.legible.status else { return Flow::Continue };
        let path = host.request_header(":path").unwrap_or_default();
        let method = host.request_header(":method").unwrap_or_default();
        let Some(route) = Route::of(&status.path, &method, &path) else { return Flow::Continue };
        let answer = refused(route, &self.places());
        host.respond(answer.status, &answer.headers, &answer.body);
        Flow::Answered
    }
}
