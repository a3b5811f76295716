//! Merges the sources of an upstream into one list.
//!
//! **Membership.** Where Envoy's own list is known, it decides: Envoy silently ignores an address that its cluster does
//! not have, so naming it would steer nothing. Otherwise every endpoint of any source is in the list.
//!
//! **Attributes.** The configuration comes first, then Prometheus, then Envoy. Announced health comes from Envoy alone
//! and always counts.

use core::net::SocketAddr;

use super::found::{Found, Places};
use config::MAX_ENDPOINTS;
use engine::endpoint::Spec;
use engine::settings::StaticEndpoint;

/// The sources of one upstream.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sources<'a> {
    /// Endpoints of the configuration.
    pub fixed: &'a [StaticEndpoint],
    /// Endpoints from Prometheus; `None` before its first response.
    pub prometheus: Option<&'a [Found]>,
    /// Endpoints from Envoy; `None` before its first response.
    pub envoy: Option<&'a [Found]>,
    /// Whether requests can only be steered to hosts of Envoy's cluster.
    pub known_to_envoy_only: bool,
}

/// The merged list.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Merged {
    /// The endpoints, each address once.
    pub specs: Vec<Spec>,
    /// The number of endpoints left out beyond [`MAX_ENDPOINTS`].
    pub beyond: usize,
    /// Addresses that were left out because Envoy's cluster does not have them: how many, and the first.
    pub unknown_to_envoy: (usize, Option<SocketAddr>),
}

impl Sources<'_> {
    /// Merges the sources.
    #[inline(never)]
    pub fn merge(&self) -> Merged {
        let mut merged = Merged::default();
        let mut places = Places::new();
        let mut place = |address: SocketAddr, specs: &mut Vec<Spec>| {
            if let Some(at) = places.get(&canonical(address)) {
                return Some(*at);
            }
            if specs.len() >= MAX_ENDPOINTS {
                merged.beyond += 1;
                return None;
            }
            places.insert(canonical(address), specs.len());
            specs.push(Spec::at(address));
            Some(specs.len() - 1)
        };
        let mut specs = Vec::new();
        let known = self.envoy.filter(|_| self.known_to_envoy_only);
        for found in known.into_iter().flatten() {
            place(found.address, &mut specs);
        }
        let all = self.fixed.iter().map(|e| e.address);
        let all = all.chain(self.prometheus.into_iter().flatten().map(|f| f.address));
        let all = all.chain(self.envoy.into_iter().flatten().map(|f| f.address));
        let mut unknown = Places::new();
        let mut first_unknown = None;
        if known.is_none() {
            all.for_each(|address| _ = place(address, &mut specs));
        } else if known.is_some_and(|known| !known.is_empty()) {
            for address in all.filter(|address| !places.contains_key(&canonical(*address))) {
                first_unknown = first_unknown.or(Some(address));
                unknown.insert(address, 0);
            }
        }
        merged.unknown_to_envoy = (unknown.len(), first_unknown);
        // In ascending precedence, so that later sources override.
        for found in self.envoy.into_iter().flatten().chain(self.prometheus.into_iter().flatten()) {
            if let Some(spec) = places.get(&canonical(found.address)).and_then(|at| specs.get_mut(*at)) {
                found.apply_to(spec);
            }
        }
        for fixed in self.fixed {
            if let Some(spec) = places.get(&canonical(fixed.address)).and_then(|at| specs.get_mut(*at)) {
                Found::from(fixed).apply_to(spec);
            }
        }
        merged.specs = specs;
        merged
    }
}

/// The address with an IPv4 address that is mapped into IPv6 as such: sources write it either way, and the first that
/// names it says how Envoy does.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

impl Found {
    fn apply_to(&self, spec: &mut Spec) {
        spec.weight = self.weight.unwrap_or(spec.weight);
        spec.priority = self.priority.unwrap_or(spec.priority);
        if let Some(weight) = self.locality_weight {
            spec.locality.clone_from(&self.locality);
            spec.locality_weight = weight;
        }
        spec.condition = spec.condition.max(self.condition);
        if !self.zone.is_empty() {
            spec.zone.clone_from(&self.zone);
        }
        if !self.version.is_empty() {
            spec.version.clone_from(&self.version);
        }
    }
}

impl From<&StaticEndpoint> for Found {
    /// A weight of 1 and a priority of 0 are the defaults and leave the choice to other sources.
    fn from(endpoint: &StaticEndpoint) -> Found {
        Found {
            weight: Some(endpoint.weight).filter(|weight| *weight != 1.0),
            priority: Some(endpoint.priority).filter(|priority| *priority != 0),
            zone: endpoint.zone.clone(),
            version: endpoint.version.clone(),
            ..Found::at(endpoint.address)
        }
    }
}

#[cfg(test)]
mod tests {
    #[cfg(all(target_family = "wasm", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;
    use engine::endpoint::AnnouncedHealth;

    fn address(host: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, host], 80))
    }

    fn fixed(host: u8, weight: f64, zone: &str) -> StaticEndpoint {
        StaticEndpoint {
            address: address(host),
            weight,
            zone: zone.into(),
            priority: 0,
            version: String::new(),
        }
    }

    fn found(host: u8) -> Found {
        Found::at(address(host))
    }

    fn hosts(merged: &Merged) -> Vec<u8> {
        let last = |spec: &Spec| match spec.address.ip() {
            core::net::IpAddr::V4(ip) => ip.octets()[3],
            core::net::IpAddr::V6(_) => 0,
        };
        merged.specs.iter().map(last).collect()
    }

    #[test]
    fn without_envoys_list_each_named_endpoint_counts_once() {
        let fixed = [fixed(1, 1.0, ""), fixed(2, 1.0, "")];
        let prometheus = [found(2), found(3)];
        let mut sources = Sources { fixed: &fixed, prometheus: Some(&prometheus), ..Sources::default() };
        assert_eq!(hosts(&sources.merge()), [1, 2, 3]);
        let envoy = [found(4)];
        sources.envoy = Some(&envoy);
        assert_eq!(hosts(&sources.merge()), [1, 2, 3, 4], "where Envoy's cluster has no hosts of its own");
        sources.known_to_envoy_only = true;
        let merged = sources.merge();
        assert_eq!((hosts(&merged), merged.unknown_to_envoy), (vec![4], (3, Some(address(1)))));
        sources.envoy = Some(&[]);
        assert!(hosts(&sources.merge()).is_empty());
    }

    #[test]
    fn the_configuration_overrules_prometheus_and_prometheus_envoy() {
        let fixed = [fixed(1, 2.0, "a"), fixed(2, 1.0, "")];
        let prometheus = [
            Found { weight: Some(3.0), zone: "b".into(), ..found(1) },
            Found { zone: "b".into(), version: "v2".into(), ..found(2) },
        ];
        let found = |host| Found {
            weight: Some(9.0),
            zone: "c".into(),
            priority: Some(1),
            condition: AnnouncedHealth::Draining,
            ..found(host)
        };
        let envoy = [found(1), found(2), found(3)];
        let merged = Sources {
            fixed: &fixed,
            prometheus: Some(&prometheus),
            envoy: Some(&envoy),
            known_to_envoy_only: true,
        }
        .merge();
        let seen: Vec<_> =
            merged.specs.iter().map(|s| (s.weight, &*s.zone, &*s.version, s.priority, s.condition)).collect();
        let draining = AnnouncedHealth::Draining;
        assert_eq!(
            seen,
            [(2.0, "a", "", 1, draining), (9.0, "b", "v2", 1, draining), (9.0, "c", "", 1, draining)]
        );
    }

    /// Envoy prints an IPv4 address that is mapped into IPv6 as such; others name it either way.
    #[test]
    fn an_address_is_the_same_in_both_forms() {
        let mapped =
            |host: u8| SocketAddr::from((core::net::Ipv4Addr::new(10, 0, 0, host).to_ipv6_mapped(), 80));
        let envoy = [Found::at(mapped(1)), found(2)];
        let prometheus = [Found { zone: "a".into(), ..found(1) }];
        let fixed = [StaticEndpoint { address: mapped(2), ..fixed(2, 3.0, "b") }];
        let (prometheus, envoy) = (Some(&prometheus[..]), Some(&envoy[..]));
        let merged = Sources { fixed: &fixed, prometheus, envoy, known_to_envoy_only: true }.merge();
        let seen: Vec<_> = merged.specs.iter().map(|s| (s.address, s.weight, &*s.zone)).collect();
        assert_eq!(seen, [(mapped(1), 1.0, "a"), (address(2), 3.0, "b")], "as Envoy has them");
        assert_eq!(merged.unknown_to_envoy, (0, None));
    }

    #[test]
    fn there_is_a_most_of_endpoints() {
        let many: Vec<Found> = (0..MAX_ENDPOINTS as u32 + 5)
            .map(|n| Found::at(SocketAddr::new(core::net::Ipv4Addr::from(n + (10 << 24)).into(), 80)))
            .collect();
        let merged = Sources { prometheus: Some(&many), ..Sources::default() }.merge();
        assert_eq!((merged.specs.len(), merged.beyond), (MAX_ENDPOINTS, 5));
    }
}
