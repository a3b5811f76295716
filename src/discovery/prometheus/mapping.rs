//! Assignment of samples to endpoints.
//!
//! A sample belongs to the endpoint whose `ip:port` its address label names; failing that to the endpoints of that IP,
//! or to the one at a fixed `port` if that is given. An exporter often listens on another port than the service.
//!
//! Several samples for one endpoint, as from a pair of Prometheus servers or from two exporters, count with the mean of
//! their known values: it does not depend on their order, and of two scrapes a moment apart neither is more right. One
//! that is half a minute older than the latest does not count: a series that has ended left it in a range. A
//! sample that names the endpoint exactly overrides those for its IP, even if its own value is unknown.

use core::net::{IpAddr, SocketAddr};

use hashbrown::HashMap;

use super::address::{Named, readings};
use super::answer::Sample;
use crate::discovery::found::Places;

/// The endpoints of one set by address; built when the set changes, used at every poll.
#[derive(Clone, Debug, Default)]
pub struct EndpointIndex {
    endpoints: Vec<(IpAddr, u16)>,
    by_address: HashMap<(IpAddr, u16), Vec<usize>>,
    /// With port 0.
    ips: Places,
}

/// The value of each endpoint, and how many samples were assigned. Each sample is counted exactly once.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Assignment {
    /// One per endpoint, in the order of the index.
    pub values: Vec<Option<f64>>,
    /// The time of the oldest sample that counts of each value, seconds since 1970, if known.
    pub times: Vec<Option<f64>>,
    /// Samples with a known value for an endpoint of the set.
    pub matched: usize,
    /// Samples without a known value for an endpoint of the set.
    pub unknown: usize,
    /// Samples for no endpoint of the set.
    pub unmatched: usize,
}

impl EndpointIndex {
    /// An index of `addresses`.
    pub fn new(addresses: impl IntoIterator<Item = SocketAddr>) -> Self {
        let mut index = EndpointIndex::default();
        for (slot, address) in addresses.into_iter().enumerate() {
            let key = (address.ip().to_canonical(), address.port());
            index.endpoints.push(key);
            index.by_address.entry(key).or_default().push(slot);
            let next = index.ips.len();
            index.ips.entry(SocketAddr::new(key.0, 0)).or_insert(next);
        }
        index
    }

    /// Assigns samples to endpoints; `port` is where they serve, if that differs from the label's port.
    #[inline(never)]
    pub fn assign(&self, samples: &[Sample], port: Option<u16>) -> Assignment {
        let mut named = vec![Mean::default(); self.endpoints.len()];
        let mut shared = vec![Mean::default(); self.ips.len()];
        let owner = |sample: &Sample| readings(&sample.address).find_map(|of| self.owner(of, port));
        let owned: Vec<(&Sample, Owner<'_>)> =
            samples.iter().filter_map(|sample| Some((sample, owner(sample)?))).collect();
        for (sample, owner) in &owned {
            owner.each(&mut named, &mut shared, |mean| mean.see(sample));
        }
        let mut assignment = Assignment { unmatched: samples.len() - owned.len(), ..Assignment::default() };
        for (sample, owner) in &owned {
            owner.each(&mut named, &mut shared, |mean| mean.add(sample));
            match sample.value {
                Some(_) => assignment.matched += 1,
                None => assignment.unknown += 1,
            }
        }
        for ((ip, _), named) in self.endpoints.iter().zip(&named) {
            let of_ip = || self.ips.get(&SocketAddr::new(*ip, 0)).and_then(|ip| shared.get(*ip));
            let mean = if named.samples > 0 { Some(named) } else { of_ip() };
            assignment.values.push(mean.and_then(Mean::value));
            assignment.times.push(mean.and_then(|mean| mean.oldest));
        }
        assignment
    }

    #[inline(never)]
    fn owner(&self, (ip, named_port): Named, port: Option<u16>) -> Option<Owner<'_>> {
        let at = |port| self.by_address.get(&(ip, port)).map(|slots| Owner::Endpoints(slots));
        named_port.and_then(at).or_else(|| match port {
            Some(port) => at(port),
            None => self.ips.get(&SocketAddr::new(ip, 0)).map(|ip| Owner::Ip(*ip)),
        })
    }
}

enum Owner<'i> {
    Endpoints(&'i [usize]),
    Ip(usize),
}

impl Owner<'_> {
    fn each(&self, named: &mut [Mean], shared: &mut [Mean], what: impl Fn(&mut Mean)) {
        match self {
            Owner::Endpoints(slots) => {
                for slot in *slots {
                    named.get_mut(*slot).into_iter().for_each(&what);
                }
            }
            Owner::Ip(ip) => shared.get_mut(*ip).into_iter().for_each(what),
        }
    }
}

/// Samples of one endpoint that lie further apart than this, seconds, are not of the same time.
const APART_S: f64 = 30.0;

/// The mean of the known values, and the number of samples, known or not.
#[derive(Clone, Default)]
struct Mean {
    samples: usize,
    known: usize,
    mean: f64,
    oldest: Option<f64>,
    latest: Option<f64>,
}

impl Mean {
    /// When the latest of the known values was taken: all samples are seen before the first is added.
    fn see(&mut self, sample: &Sample) {
        if let (Some(_), Some(at)) = (known(sample), sample.at) {
            self.latest = Some(self.latest.map_or(at, |latest| latest.max(at)));
        }
    }

    fn is_outdated(&self, sample: &Sample) -> bool {
        matches!((self.latest, sample.at), (Some(latest), Some(at)) if latest - at > APART_S)
    }

    /// Weighted halves instead of a sum: finite values keep a finite mean.
    fn add(&mut self, sample: &Sample) {
        self.samples += 1;
        if let Some(value) = known(sample).filter(|_| !self.is_outdated(sample)) {
            self.oldest = match (self.oldest, sample.at) {
                (Some(oldest), Some(at)) => Some(oldest.min(at)),
                (oldest, at) => oldest.or(at),
            };
            self.known += 1;
            let part = 1.0 / self.known as f64;
            self.mean = self.mean * (1.0 - part) + value * part;
        }
    }

    fn value(&self) -> Option<f64> {
        (self.known > 0).then_some(self.mean)
    }
}

fn known(sample: &Sample) -> Option<f64> {
    sample.value.filter(|value| value.is_finite())
}

#[cfg(test)]
mod tests {
    #[cfg(all(target_family = "wasm", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    fn index(addresses: &[&str]) -> EndpointIndex {
        EndpointIndex::new(addresses.iter().map(|address| address.parse().unwrap()))
    }

    fn assign(addresses: &[&str], samples: &[(&str, f64)], port: Option<u16>) -> Assignment {
        let sample = |(address, value): &(&str, f64)| Sample {
            address: (*address).to_owned(),
            value: Some(*value).filter(|value| value.is_finite()),
            ..Sample::default()
        };
        index(addresses).assign(&samples.iter().map(sample).collect::<Vec<_>>(), port)
    }

    #[test]
    fn a_sample_belongs_to_the_endpoint_it_names() {
        let got = assign(
            &["10.0.0.1:80", "10.0.0.1:81", "[2001:db8::1]:80"],
            &[("10.0.0.1:81", 1.0), ("[2001:db8::1]:80", 2.0), ("10.0.0.9:80", 3.0), ("web:80", 4.0)],
            None,
        );
        assert_eq!(got.values, [None, Some(1.0), Some(2.0)]);
        assert_eq!((got.matched, got.unknown, got.unmatched), (2, 0, 2));
    }

    #[test]
    fn failing_that_to_all_endpoints_of_its_ip() {
        let fleet = ["10.0.0.1:80", "10.0.0.1:81", "10.0.0.2:80"];
        assert_eq!(assign(&fleet, &[("10.0.0.1:9100", 1.0)], None).values, [Some(1.0), Some(1.0), None]);
        assert_eq!(assign(&fleet, &[("10.0.0.2", 1.0)], None).values, [None, None, Some(1.0)]);
    }

    #[test]
    fn a_fixed_port_picks_among_them() {
        let fleet = ["10.0.0.1:80", "10.0.0.1:81"];
        assert_eq!(assign(&fleet, &[("10.0.0.1:9100", 1.0)], Some(81)).values, [None, Some(1.0)]);
        assert_eq!(assign(&fleet, &[("10.0.0.1", 1.0)], Some(81)).values, [None, Some(1.0)]);
        let unmatched_port = assign(&fleet, &[("10.0.0.1:9100", 1.0)], Some(82));
        assert_eq!((unmatched_port.values, unmatched_port.unmatched), (vec![None, None], 1));
    }

    #[test]
    fn a_name_that_fits_as_it_stands_needs_no_fixed_port() {
        let fleet = ["127.0.0.1:9001", "127.0.0.1:9002"];
        let got = assign(&fleet, &[("127.0.0.1:9001", 1.0), ("127.0.0.1:9002", 2.0)], Some(9001));
        assert_eq!(got.values, [Some(1.0), Some(2.0)]);
    }

    #[test]
    fn being_named_beats_sharing_an_ip_in_any_order() {
        let fleet = ["10.0.0.1:80", "10.0.0.1:81"];
        let mut samples = [("10.0.0.1:9100", 5.0), ("10.0.0.1:80", 1.0)];
        assert_eq!(assign(&fleet, &samples, None).values, [Some(1.0), Some(5.0)]);
        samples.reverse();
        assert_eq!(assign(&fleet, &samples, None).values, [Some(1.0), Some(5.0)]);
        let unknown = assign(&fleet, &[("10.0.0.1:9100", 5.0), ("10.0.0.1:80", f64::NAN)], None);
        assert_eq!(unknown.values, [None, Some(5.0)]);
        assert_eq!((unknown.matched, unknown.unknown, unknown.unmatched), (1, 1, 0));
    }

    #[test]
    fn several_samples_count_with_the_mean_of_the_known_ones() {
        let pair = [("10.0.0.1:80", 1.0), ("10.0.0.1:80", f64::NAN), ("10.0.0.1:80", 4.0)];
        assert_eq!(assign(&["10.0.0.1:80"], &pair, None).values, [Some(2.5)]);
        let huge = [("10.0.0.1:80", f64::MAX), ("10.0.0.1:80", f64::MAX)];
        assert_eq!(assign(&["10.0.0.1:80"], &huge, None).values, [Some(f64::MAX)]);
    }

    #[test]
    fn what_a_series_that_has_ended_left_does_not_count() {
        let sample = |value, at| Sample {
            address: "10.0.0.1:80".into(),
            value: Some(value).filter(|value: &f64| value.is_finite()),
            at: Some(at),
            ..Sample::default()
        };
        for (others, value, at) in [
            (&[(9.0, 940.0)][..], 1.0, 1000.0),
            (&[(9.0, 940.0), (3.0, 985.0)], 2.0, 985.0),
            (&[(f64::NAN, 1100.0)], 1.0, 1000.0),
            (&[(9.0, 1031.0)], 9.0, 1031.0),
        ] {
            let mut samples: Vec<Sample> = others.iter().map(|(value, at)| sample(*value, *at)).collect();
            samples.push(sample(1.0, 1000.0));
            for _ in 0..2 {
                let got = index(&["10.0.0.1:80"]).assign(&samples, None);
                assert_eq!(
                    (&got.values[..], &got.times[..]),
                    (&[Some(value)][..], &[Some(at)][..]),
                    "{others:?}"
                );
                assert_eq!(got.matched + got.unknown, samples.len());
                samples.reverse();
            }
        }
    }

    #[test]
    fn ipv6_without_brackets_is_tried_with_and_without_a_port() {
        assert_eq!(assign(&["[fd00::1:9100]:80"], &[("fd00::1:9100", 1.0)], None).values, [Some(1.0)]);
        assert_eq!(assign(&["[fd00::1]:9100"], &[("fd00::1:9100", 1.0)], None).values, [Some(1.0)]);
    }

    #[test]
    fn an_address_listed_twice_gets_its_value_twice() {
        assert_eq!(assign(&["10.0.0.1:80"; 2], &[("10.0.0.1:80", 1.0)], None).values, [Some(1.0); 2]);
    }

    /// Envoy prints an IPv4 address that is mapped into IPv6 as such, and Prometheus may name it either way.
    #[test]
    fn an_address_is_the_same_in_both_forms() {
        let mapped = ["[::ffff:10.0.0.1]:80", "10.0.0.2:80"];
        for samples in [
            [("10.0.0.1:80", 1.0), ("[::ffff:10.0.0.2]:80", 2.0)],
            [("10.0.0.1:9100", 1.0), ("10.0.0.2", 2.0)],
        ] {
            assert_eq!(assign(&mapped, &samples, None).values, [Some(1.0), Some(2.0)], "{samples:?}");
        }
    }

    #[test]
    fn a_mean_is_as_old_as_its_oldest_part() {
        let sample = |at: Option<f64>| Sample {
            address: "10.0.0.1:80".into(),
            value: Some(1.0),
            at,
            labels: Vec::new(),
        };
        let time = |times: &[Option<f64>]| {
            let samples: Vec<Sample> = times.iter().copied().map(sample).collect();
            index(&["10.0.0.1:80"]).assign(&samples, None).times
        };
        assert_eq!(time(&[Some(30.0), Some(10.0), Some(20.0)]), [Some(10.0)]);
        assert_eq!(time(&[None, Some(10.0)]), [Some(10.0)]);
        assert_eq!(time(&[None]), [None]);
    }
}
