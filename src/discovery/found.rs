//! What one source says of endpoints, before the sources are merged.

use core::net::SocketAddr;
use std::collections::BTreeMap;

use hashbrown::HashSet;

use config::MAX_ENDPOINTS;
use config::printable::printable;
use engine::endpoint::AnnouncedHealth;

/// The most weight that an endpoint has, and the least: Envoy's go up to four thousand million, and shares are
/// products of several such factors.
pub(crate) const WEIGHTS: core::ops::RangeInclusive<f64> = 1e-6..=1e6;
/// No zone or version is longer, in bytes; as in the configuration.
const MAX_NAME: usize = 128;
/// So many entries that name no endpoint are shown, each up to this length.
const MAX_EXAMPLES: usize = 3;
const MAX_EXAMPLE: usize = 60;

/// What a source says of one endpoint; what it does not say is left to the others.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// Where it listens.
    pub address: SocketAddr,
    /// Relative capacity, > 0.
    pub weight: Option<f64>,
    /// Zone, empty if not said.
    pub zone: String,
    /// The locality that requests are divided by, empty if not said.
    pub locality: String,
    /// What that locality gets beside the others of its priority; none if requests are not divided by it.
    pub locality_weight: Option<f64>,
    /// 0 is used first.
    pub priority: Option<u32>,
    /// Version, empty if not said.
    pub version: String,
    /// How it stands.
    pub condition: AnnouncedHealth,
}

impl Found {
    /// An endpoint of which nothing is said but where it listens.
    pub fn at(address: SocketAddr) -> Found {
        Found {
            address,
            weight: None,
            zone: String::new(),
            locality: String::new(),
            locality_weight: None,
            priority: None,
            version: String::new(),
            condition: AnnouncedHealth::Serving,
        }
    }
}

/// What one answer of a source says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Finding {
    /// The endpoints, each address once.
    pub found: Vec<Found>,
    /// Entries that name no endpoint that a request can be sent to.
    pub skipped: usize,
    /// What the first of these are called.
    pub examples: Vec<String>,
    /// Endpoints beyond [`MAX_ENDPOINTS`].
    pub beyond: usize,
    /// By priority: what the source gives the entries that no request can be sent to, Σ weights.
    left_out: BTreeMap<u32, f64>,
    seen: HashSet<SocketAddr>,
}

impl Finding {
    /// Takes one endpoint; the first of two with the same address counts. Names that are too long, or could break a
    /// line, count as not said.
    pub fn add(&mut self, found: Found) {
        if self.seen.contains(&found.address) {
            return;
        }
        if self.found.len() >= MAX_ENDPOINTS {
            self.beyond += 1;
            return;
        }
        self.seen.insert(found.address);
        let weight = found.weight.map(|weight| weight.clamp(*WEIGHTS.start(), *WEIGHTS.end()));
        let (zone, version, locality) = (name(found.zone), name(found.version), name(found.locality));
        self.found.push(Found { weight, zone, version, locality, ..found });
    }

    /// Counts an entry that no request can be sent to, called `name`, and what the source gives it.
    pub fn leave_out(&mut self, name: &str, weight: f64, priority: u32) {
        self.skipped += 1;
        let name = printable(name, MAX_EXAMPLE);
        if self.examples.len() < MAX_EXAMPLES && !self.examples.contains(&name) {
            self.examples.push(name);
        }
        if weight > 0.0 {
            *self.left_out.entry(priority).or_default() += weight;
        }
    }

    /// The part of the requests that the source gives to entries that no request can be steered to, at the priority that
    /// is used first, 0 to 1.
    pub fn unsteerable(&self) -> f64 {
        let first = self.found.iter().map(|found| found.priority.unwrap_or(0)).min();
        let Some(first) = first.into_iter().chain(self.left_out.keys().copied()).min() else { return 0.0 };
        let here =
            self.found.iter().filter(|f| f.priority.unwrap_or(0) == first && !f.condition.is_unavailable());
        let steered: f64 = here.map(|found| found.weight.unwrap_or(1.0)).sum();
        let left_out = self.left_out.get(&first).copied().unwrap_or(0.0);
        if left_out > 0.0 { left_out / (left_out + steered) } else { 0.0 }
    }
}

fn name(text: String) -> String {
    if text.len() <= MAX_NAME && !text.contains(char::is_control) { text } else { String::new() }
}
