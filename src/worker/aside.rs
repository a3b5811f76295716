//! Standing aside: what the filter does with a configuration that it refuses, where its VM's environment says that no
//! request is to suffer from it. Everything passes; the log, a metric and the status page say why nothing is balanced.

use core::cell::Cell;

use crate::host::event::{Event, Field};
use crate::host::{Host, MetricKind, StreamHost};
use crate::request::Flow;
use crate::sharing;
use crate::telemetry::envoy_stats::{REFUSED, process_metric};
use crate::telemetry::status::{Route, refused};
use config::{Fault, Legible};
use engine::time::Time;

/// The environment variable of the VM that says what becomes of a refused configuration.
pub const VARIABLE: &str = "EVENKEEL_ON_REFUSED_CONFIGURATION";
const STAND_ASIDE: &str = "stand_aside";
const REFUSE: &str = "refuse";
/// The log says it again after so long, by one worker of the process.
const REPEAT_S: f64 = 60.0;
/// How often some worker looks whether it is time.
pub const TICK_MS: u64 = 5_000;
/// The steering headers of a configuration that names none: a client's must not reach what follows them.
const DEFAULT_HEADERS: [&str; 2] = ["x-evenkeel-endpoint", "x-envoy-original-dst-host"];

/// Whether to stand aside, by the value of [`VARIABLE`]; a value that means nothing is said in the log and means no.
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

/// A configuration has been accepted, where standing aside is wanted: the metric is there from the start.
pub fn accepted(host: &dyn Host) {
    show(host, 0);
}

fn show(host: &dyn Host, value: u64) {
    if let Some(metric) = host.metric(MetricKind::Gauge, &process_metric(REFUSED)) {
        host.record(metric, value);
    }
}

/// A refused configuration that is stood aside from.
#[derive(Debug)]
pub struct Aside {
    faults: Vec<Fault>,
    legible: Legible,
    /// An earlier configuration of the same plugin is still in force.
    keeps: bool,
    /// When it was said last: by this worker, and where the workers of the process leave it.
    said: Cell<Time>,
    key: String,
}

impl Aside {
    /// Stands aside from `json` with these faults; `keeps` where an earlier configuration of the plugin `name` goes on.
    pub fn from(host: &dyn Host, json: &[u8], name: &str, faults: Vec<Fault>, keeps: bool) -> Aside {
        let key = format!("{}/refused", sharing::prefix(name));
        // Nothing is left in shared data: Envoy tries a configuration in a throwaway VM first.
        let aside = Aside { faults, legible: config::legible(json), keeps, said: Cell::new(host.now()), key };
        aside.say(host);
        show(host, 1);
        aside
    }

    /// Where the faults are, without what was found there.
    pub fn places(&self) -> Vec<String> {
        self.faults.iter().map(|fault| fault.path.clone()).collect()
    }

    fn say(&self, host: &dyn Host) {
        for fault in &self.faults {
            let message = format!("configuration refused: {fault}");
            host.tell(&Event {
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

    /// Time passes: says it again, unless another worker has.
    pub fn tick(&self, host: &dyn Host) {
        let now = host.now();
        let said = host
            .shared_get(&self.key)
            .and_then(|(bytes, _)| Some(u64::from_le_bytes(bytes.try_into().ok()?)));
        let said = Time(said.unwrap_or(0)).max(self.said.get());
        if now >= said && now.seconds_since(said) < REPEAT_S {
            return;
        }
        self.said.set(now);
        let _the_next_says_it_too = host.shared_set(&self.key, &now.0.to_le_bytes(), None);
        self.say(host);
        show(host, 1);
    }

    /// Request headers: nothing is touched but the steering header, and the status page says what is wrong.
    pub fn request_headers(&self, host: &dyn StreamHost) -> Flow {
        match &self.legible.steering_header {
            Some(header) => host.remove_request_header(header),
            None => DEFAULT_HEADERS.iter().for_each(|header| host.remove_request_header(header)),
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
