//! The endpoints that one source names, before the sources are merged.

use core::net::SocketAddr;

use hashbrown::HashMap;

use config::MAX_ENDPOINTS;
use config::printable::printable;
use engine::endpoint::AnnouncedHealth;

/// The range of an endpoint's weight. Envoy's weights go up to four thousand million, and shares are products of
/// several such factors.
pub(crate) const WEIGHTS: core::ops::RangeInclusive<f64> = 1e-6..=1e6;
/// The longest zone or version, bytes; as in the configuration.
const MAX_NAME: usize = 128;
/// The number of skipped entries shown as examples.
const MAX_EXAMPLES: usize = 3;
/// The longest example, characters.
const MAX_EXAMPLE: usize = 60;

/// Positions by address. One kind of map wherever addresses are looked up: each other kind is a kilobyte of code.
pub(super) type Places = HashMap<SocketAddr, usize>;

/// One endpoint as a source describes it; fields that it leaves out come from the other sources.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// `ip:port` of the endpoint.
    pub address: SocketAddr,
    /// Relative capacity, > 0.
    pub weight: Option<f64>,
    /// Zone; empty if unknown.
    pub zone: String,
    /// The locality by which requests are divided; empty if unknown.
    pub locality: String,
    /// The weight of that locality among those of its priority; `None` if requests are not divided by it.
    pub locality_weight: Option<f64>,
    /// Priority; 0 is used first.
    pub priority: Option<u32>,
    /// Version; empty if unknown.
    pub version: String,
    /// Its health as announced by the source.
    pub condition: AnnouncedHealth,
}

impl Found {
    /// An endpoint of which only the address is known.
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

/// The content of one response of a source.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Finding {
    /// The endpoints, each address once.
    pub found: Vec<Found>,
    /// The number of entries without an address that a request can be sent to.
    pub skipped: usize,
    /// The names of the first of these.
    pub examples: Vec<String>,
    /// The number of endpoints beyond [`MAX_ENDPOINTS`].
    pub beyond: usize,
    /// The first priority of skipped entries, and the sum of their weights there: no other can be the one that is used first.
    left_out: Option<(u32, f64)>,
    /// The positions in `found`.
    pub(super) seen: Places,
}

impl Finding {
    /// Adds an endpoint; of two with the same address the first counts. Names that are too long or have control
    /// characters are ignored.
    pub fn add(&mut self, found: Found) {
        if self.seen.contains_key(&found.address) {
            return;
        }
        if self.found.len() >= MAX_ENDPOINTS {
            self.beyond += 1;
            return;
        }
        self.seen.insert(found.address, self.found.len());
        let weight = found.weight.map(|weight| weight.clamp(*WEIGHTS.start(), *WEIGHTS.end()));
        let (zone, version, locality) = (name(found.zone), name(found.version), name(found.locality));
        self.found.push(Found { weight, zone, version, locality, ..found });
    }

    /// Adds a host of Envoy's, which may have an address in several localities: as hosts of their own there, each with its
    /// part of the requests. Those that are used count together.
    pub fn add_host(&mut self, host: Found) {
        let known = self.seen.get(&host.address).and_then(|at| self.found.get_mut(*at));
        let Some(known) = known else { return self.add(host) };
        if known.condition.is_unavailable() && !host.condition.is_unavailable() {
            (known.condition, known.weight, known.priority) = (host.condition, host.weight, host.priority);
            // Its requests are those of that locality.
            known.locality = name(host.locality);
        } else if known.condition == host.condition && known.priority == host.priority {
            let weights = known.weight.unwrap_or(1.0) + host.weight.unwrap_or(1.0);
            known.weight = Some(weights.clamp(*WEIGHTS.start(), *WEIGHTS.end()));
        }
    }

    /// Counts a skipped entry called `name`, with its weight.
    pub fn leave_out(&mut self, name: &str, weight: f64, priority: u32) {
        self.skipped += 1;
        let name = printable(name, MAX_EXAMPLE);
        if self.examples.len() < MAX_EXAMPLES && !self.examples.contains(&name) {
            self.examples.push(name);
        }
        if weight > 0.0 {
            self.left_out = Some(match self.left_out {
                Some((first, sum)) if first < priority => (first, sum),
                Some((first, sum)) if first == priority => (first, sum + weight),
                _ => (priority, weight),
            });
        }
    }

    /// The fraction of the requests that the source gives to skipped entries, at the priority that is used first,
    /// 0..=1.
    pub fn unsteerable(&self) -> f64 {
        let first = self.found.iter().map(|found| found.priority.unwrap_or(0)).min();
        let (skipped, left_out) = self.left_out.unzip();
        let Some(first) = first.into_iter().chain(skipped).min() else { return 0.0 };
        let here =
            self.found.iter().filter(|f| f.priority.unwrap_or(0) == first && !f.condition.is_unavailable());
        let steered: f64 = here.map(|found| found.weight.unwrap_or(1.0)).sum();
        let left_out = left_out.filter(|_| skipped == Some(first)).unwrap_or(0.0);
        if left_out > 0.0 { left_out / (left_out + steered) } else { 0.0 }
    }
}

fn name(text: String) -> String {
    if text.len() <= MAX_NAME && !text.contains(char::is_control) { text } else { String::new() }
}

#[cfg(test)]
mod tests {
    #[cfg(all(target_family = "wasm", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    fn at(host: usize) -> Found {
        Found::at(SocketAddr::from(([10, 0, (host >> 8) as u8, host as u8], 80)))
    }

    #[test]
    fn so_many_endpoints_are_kept_and_the_others_counted() {
        let mut finding = Finding::default();
        (0..MAX_ENDPOINTS + 3).for_each(|host| finding.add(at(host)));
        finding.add(at(0));
        assert_eq!((finding.found.len(), finding.beyond), (MAX_ENDPOINTS, 3), "one twice is one");
    }

    #[test]
    fn an_address_in_several_localities_is_one_endpoint_with_the_weight_of_those_in_use() {
        let host = |zone: &str, weight, priority, condition| Found {
            weight,
            zone: zone.into(),
            priority: Some(priority),
            condition,
            ..at(1)
        };
        let (serves, out) = (AnnouncedHealth::Serving, AnnouncedHealth::Unhealthy);
        for (hosts, seen) in [
            (
                vec![host("a", Some(2.0), 0, serves), host("b", Some(3.0), 0, serves)],
                (Some(5.0), Some(0), serves),
            ),
            (vec![host("a", None, 0, serves), host("b", None, 0, serves)], (Some(2.0), Some(0), serves)),
            (
                vec![host("a", Some(2.0), 0, serves), host("b", Some(3.0), 0, out)],
                (Some(2.0), Some(0), serves),
            ),
            (
                vec![host("a", Some(2.0), 0, out), host("b", Some(3.0), 1, serves)],
                (Some(3.0), Some(1), serves),
            ),
            (
                vec![host("a", Some(2.0), 0, serves), host("b", Some(3.0), 1, serves)],
                (Some(2.0), Some(0), serves),
            ),
            (
                vec![host("a", Some(9e5), 0, serves), host("b", Some(9e5), 0, serves)],
                (Some(1e6), Some(0), serves),
            ),
        ] {
            let mut finding = Finding::default();
            hosts.iter().cloned().for_each(|host| finding.add_host(host));
            let [one] = &finding.found[..] else { panic!("{finding:?}") };
            assert_eq!((one.weight, one.priority, one.condition), seen, "{hosts:?}");
            assert_eq!(one.zone, "a");
        }
    }

    #[test]
    fn an_address_is_in_the_locality_in_which_it_is_used() {
        let host = |locality: &str, condition| Found { locality: locality.into(), condition, ..at(1) };
        let (serves, out) = (AnnouncedHealth::Serving, AnnouncedHealth::Unhealthy);
        for (hosts, locality) in [
            ([host("a", out), host("b", serves)], "b"),
            ([host("a", serves), host("b", out)], "a"),
            ([host("a", serves), host("b", serves)], "a"),
            ([host("a", out), host("b", out)], "a"),
        ] {
            let mut finding = Finding::default();
            hosts.into_iter().for_each(|host| finding.add_host(host));
            assert_eq!(finding.found[0].locality, locality);
        }
    }

    /// What a source says of an endpoint reaches logs and pages.
    #[test]
    fn names_are_short_and_printable_and_weights_within_their_range() {
        let mut finding = Finding::default();
        let long = "z".repeat(MAX_NAME + 1);
        for (host, (zone, weight)) in [("a", 1e9), (&*long, 0.0), ("b\nc", 2.0)].into_iter().enumerate() {
            let (zone, version) = (zone.to_owned(), zone.to_owned());
            finding.add(Found { weight: Some(weight), zone, version, ..at(host) });
        }
        let of = |found: &Found| (found.zone.clone(), found.version.clone(), found.weight);
        let all: Vec<_> = finding.found.iter().map(of).collect();
        let none = String::new;
        let expected = [
            ("a".to_owned(), "a".to_owned(), Some(1e6)),
            (none(), none(), Some(1e-6)),
            (none(), none(), Some(2.0)),
        ];
        assert_eq!(all, expected);
        for name in ["one\u{1b}[31m", "two", "two", "three", "four"] {
            finding.leave_out(name, 1.0, 0);
        }
        assert_eq!((finding.skipped, finding.examples.join(" ")), (5, r"one\u{1b}[31m two three".to_owned()));
    }
}
