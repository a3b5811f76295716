//! What one source says of endpoints, before the sources are merged.

use core::net::SocketAddr;

use hashbrown::HashSet;

use super::Condition;
use crate::config::MOST_ENDPOINTS;

/// The most weight that an endpoint has, and the least: Envoy's go up to four thousand million, and shares are
/// products of several such factors.
pub(crate) const WEIGHTS: core::ops::RangeInclusive<f64> = 1e-6..=1e6;
/// No zone or version is longer, in bytes; as in the configuration.
const LONGEST_NAME: usize = 128;

/// What a source says of one endpoint; what it does not say is left to the others.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// Where it listens.
    pub address: SocketAddr,
    /// Relative capacity, > 0.
    pub weight: Option<f64>,
    /// Zone, empty if not said.
    pub zone: String,
    /// 0 is used first.
    pub priority: Option<u32>,
    /// Version, empty if not said.
    pub version: String,
    /// How it stands.
    pub condition: Condition,
}

impl Found {
    /// An endpoint of which nothing is said but where it listens.
    pub fn at(address: SocketAddr) -> Found {
        Found {
            address,
            weight: None,
            zone: String::new(),
            priority: None,
            version: String::new(),
            condition: Condition::Serving,
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
    /// Endpoints beyond [`MOST_ENDPOINTS`].
    pub beyond: usize,
    seen: HashSet<SocketAddr>,
}

impl Finding {
    /// Takes one endpoint; the first of two with the same address counts. Names that are too long, or could break a
    /// line, count as not said.
    pub fn add(&mut self, found: Found) {
        if self.seen.contains(&found.address) {
            return;
        }
        if self.found.len() >= MOST_ENDPOINTS {
            self.beyond += 1;
            return;
        }
        self.seen.insert(found.address);
        let weight = found.weight.map(|weight| weight.clamp(*WEIGHTS.start(), *WEIGHTS.end()));
        self.found.push(Found { weight, zone: name(found.zone), version: name(found.version), ..found });
    }
}

fn name(text: String) -> String {
    if text.len() <= LONGEST_NAME && !text.contains(char::is_control) { text } else { String::new() }
}
