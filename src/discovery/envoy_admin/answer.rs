//! The response to `/clusters`: the hosts of clusters, and their health.

use core::fmt;
use core::net::{IpAddr, SocketAddr};

use super::scanner::{Scanner, Unreadable};
use crate::discovery::found::{Finding, Found};
use crate::discovery::json::{Fields, Unread, Value};
use crate::host::Body;
use config::printable::printable;
use engine::endpoint::AnnouncedHealth;

/// The longest text from a response in a message, characters.
const MAX_SHOWN: usize = 200;

/// Why a response says nothing about a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unusable {
    /// An HTTP status other than 200.
    Status(u32),
    /// Not a response of Envoy's admin interface: the reason, printable.
    Malformed(String),
    /// Envoy has no such cluster.
    NoSuchCluster,
    /// The number of hosts, none of which has an IP address.
    NoAddresses(usize),
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unusable::Status(status) => write!(f, "HTTP status {status}"),
            Unusable::Malformed(reason) => {
                write!(f, "not a response of Envoy's admin interface: {reason}")
            }
            Unusable::NoSuchCluster => f.write_str("Envoy has no cluster of that name"),
            Unusable::NoAddresses(hosts) => write!(f, "none of {hosts} hosts has an IP address"),
        }
    }
}

impl core::error::Error for Unusable {}

impl From<Unreadable> for Unusable {
    fn from(error: Unreadable) -> Unusable {
        Unusable::Malformed(printable(&error.to_string(), MAX_SHOWN))
    }
}

/// The content of a response.
#[derive(Clone, Debug, PartialEq)]
pub struct Listing {
    /// The clusters that were asked for, in that order.
    pub clusters: Vec<Result<ClusterHosts, Unusable>>,
    /// The number of other clusters in the response.
    pub others: usize,
}

/// One cluster in a response.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ClusterHosts {
    /// Its hosts.
    pub finding: Finding,
    /// The name under which Envoy requests its endpoints (EDS service name), if it has one.
    pub eds_name: Option<String>,
    /// Its name in stats and logs, if it has another one there.
    pub stat_name: Option<String>,
}

/// Reads the response to [`clusters_path`](super::clusters_path) for `clusters`.
#[inline(never)]
pub fn parse(status: u32, body: &dyn Body, clusters: &[&str]) -> Result<Listing, Unusable> {
    if status != 200 {
        return Err(Unusable::Status(status));
    }
    let (mut found, mut others) = (vec![None; clusters.len()], 0);
    let mut scanner = Scanner::new(body);
    scanner.object(&["cluster_statuses"], &mut |scanner, _| {
        scanner.array(&mut |scanner| {
            let one = Cluster::read(scanner, clusters)?;
            let at = clusters.iter().position(|cluster| *cluster == one.name);
            match at.and_then(|at| found.get_mut(at)) {
                Some(hosts) => *hosts = Some(one.hosts),
                None => others += 1,
            }
            Ok(())
        })
    })?;
    scanner.end()?;
    let checked = |hosts: Option<ClusterHosts>| {
        let hosts = hosts.ok_or(Unusable::NoSuchCluster)?;
        let Finding { ref found, skipped, .. } = hosts.finding;
        if found.is_empty() && skipped > 0 { Err(Unusable::NoAddresses(skipped)) } else { Ok(hosts) }
    };
    Ok(Listing { clusters: found.into_iter().map(checked).collect(), others })
}

#[derive(Default)]
struct Cluster {
    name: String,
    hosts: ClusterHosts,
}

impl Cluster {
    /// Reads a cluster; of one that was not `asked` for, only the name. Envoy prints names first, and before 1.38 it
    /// prints all of its clusters, whatever the filter.
    #[inline(never)]
    fn read(scanner: &mut Scanner<'_>, asked: &[&str]) -> Result<Cluster, Unreadable> {
        let Cluster { mut name, mut hosts } = Cluster::default();
        let fields = ["name", "eds_service_name", "observability_name", "host_statuses"];
        scanner.object(&fields, &mut |scanner, field| {
            match field {
                "name" => name = scanner.value()?,
                "eds_service_name" => hosts.eds_name = Some(scanner.value()?),
                "observability_name" => hosts.stat_name = Some(scanner.value()?),
                _ if !name.is_empty() && !asked.contains(&&*name) => scanner.skip()?,
                _ => scanner.array(&mut |scanner| {
                    match Host::read(scanner)?.found() {
                        Ok(found) => hosts.finding.add_host(found),
                        Err(out) => hosts.finding.leave_out(&out.name, out.weight, out.priority),
                    }
                    Ok(())
                })?,
            }
            Ok(())
        })?;
        Ok(Cluster { name, hosts })
    }
}

#[derive(Default)]
struct Host {
    address: Address,
    health: Health,
    weight: Option<u32>,
    priority: u32,
    locality: LocalityName,
}

impl Host {
    #[inline(never)]
    fn read(scanner: &mut Scanner<'_>) -> Result<Host, Unreadable> {
        let mut host = Host::default();
        scanner.object(
            &["address", "health_status", "weight", "priority", "locality"],
            &mut |scanner, field| match field {
                "address" => scanner.read(&mut host.address),
                "health_status" => scanner.read(&mut host.health),
                "locality" => scanner.read(&mut host.locality),
                "weight" => scanner.value().map(|weight| host.weight = weight),
                _ => scanner.value().map(|priority| host.priority = priority),
            },
        )?;
        Ok(host)
    }
}

/// A host that no request can be steered to.
struct LeftOut {
    name: String,
    /// Its weight; 0 if Envoy sends it no requests either.
    weight: f64,
    priority: u32,
}

impl Host {
    /// The endpoint, or `Err` for a pipe, an internal listener or anything else without an IP address.
    #[inline(never)]
    fn found(self) -> Result<Found, LeftOut> {
        let socket = &self.address.socket;
        let ip: Option<IpAddr> = socket.ip.parse().ok().filter(|ip: &IpAddr| !ip.is_unspecified());
        let port = u16::try_from(socket.port).ok().filter(|port| *port != 0);
        let weight = self.weight.filter(|weight| *weight > 0).map(f64::from);
        let (Some(ip), Some(port)) = (ip, port) else {
            let serves = !self.health.condition.is_unavailable();
            let weight = if serves { weight.unwrap_or(1.0) } else { 0.0 };
            return Err(LeftOut { name: self.address.name(), weight, priority: self.priority });
        };
        Ok(Found {
            weight,
            locality: self.locality.name(),
            zone: self.locality.zone,
            priority: Some(self.priority),
            condition: self.health.condition,
            ..Found::at(SocketAddr::new(ip, port))
        })
    }
}

/// An address of any kind; only sockets can be steered to.
#[derive(Default)]
struct Address {
    socket: Socket,
    other: &'static str,
}

impl Address {
    /// A name for it, as far as its kind is known.
    fn name(self) -> String {
        let Socket { ip, port } = self.socket;
        match self.other {
            "" => format!("{ip}:{port}"),
            other => other.into(),
        }
    }
}

impl Fields for Address {
    fn field(&mut self, key: &str, value: &mut dyn Value) -> Result<(), Unread> {
        match key {
            "socket_address" => return value.object(&mut self.socket),
            "pipe" => self.other = "a pipe",
            "envoy_internal_address" => self.other = "an internal listener",
            _ => {}
        }
        value.skip()
    }
}

#[derive(Default)]
struct Socket {
    ip: String,
    port: u32,
}

impl Fields for Socket {
    fn field(&mut self, key: &str, value: &mut dyn Value) -> Result<(), Unread> {
        match key {
            "address" => self.ip = value.text()?,
            "port_value" => self.port = value.whole()?,
            _ => value.skip()?,
        }
        Ok(())
    }
}

/// The parts of a locality's name.
#[derive(Default)]
pub(super) struct LocalityName {
    region: String,
    zone: String,
    sub_zone: String,
}

impl LocalityName {
    /// `region/zone/sub_zone`, without empty parts at the end.
    pub(super) fn name(&self) -> String {
        let parts = [&*self.region, &self.zone, &self.sub_zone];
        let count = parts.iter().rposition(|part| !part.is_empty()).map_or(0, |last| last + 1);
        parts.get(..count).unwrap_or_default().join("/")
    }
}

impl Fields for LocalityName {
    fn field(&mut self, key: &str, value: &mut dyn Value) -> Result<(), Unread> {
        match key {
            "region" => self.region = value.text()?,
            "zone" => self.zone = value.text()?,
            "sub_zone" => self.sub_zone = value.text()?,
            _ => value.skip()?,
        }
        Ok(())
    }
}

/// The worst of a host's health flags.
#[derive(Default)]
struct Health {
    condition: AnnouncedHealth,
}

impl Fields for Health {
    fn field(&mut self, key: &str, value: &mut dyn Value) -> Result<(), Unread> {
        let announced = match key {
            "eds_health_status" => match &*value.text()? {
                "UNHEALTHY" | "TIMEOUT" => AnnouncedHealth::Unhealthy,
                "DRAINING" => AnnouncedHealth::Draining,
                "DEGRADED" => AnnouncedHealth::Degraded,
                _ => AnnouncedHealth::Serving,
            },
            flag => {
                let meaning = match flag {
                    "failed_active_health_check"
                    | "failed_outlier_check"
                    | "excluded_via_immediate_hc_fail"
                    | "pending_active_hc" => AnnouncedHealth::Unhealthy,
                    "failed_active_degraded_check" | "failed_degraded_outlier_detection" => {
                        AnnouncedHealth::Degraded
                    }
                    // `pending_dynamic_removal` says nothing against a host: its control plane no longer lists it, and
                    // Envoy uses it for as long as it passes its health checks.
                    _ => return value.skip(),
                };
                if value.flag()? { meaning } else { AnnouncedHealth::Serving }
            }
        };
        self.condition = self.condition.max(announced);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #[cfg(all(target_family = "wasm", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    /// One host as Envoy prints it, with all of its counters.
    fn host(address: &str, health: &str, more: &str) -> String {
        format!(
            r#"{{
     "address": {address},
     "stats": [
      {{ "name": "cx_connect_fail" }}, {{ "name": "cx_total", "value": "4" }}, {{ "name": "rq_error" }},
      {{ "name": "rq_success", "value": "1024" }}, {{ "type": "GAUGE", "name": "cx_active", "value": "4" }}
     ],
     "health_status": {{ {health} }},
     "weight": 1{more}
    }}"#
        )
    }

    fn ip(host: u8) -> String {
        format!(r#"{{ "socket_address": {{ "address": "10.0.0.{host}", "port_value": 8080 }} }}"#)
    }

    fn clusters(name: &str, hosts: &[String]) -> String {
        format!(
            r#"{{ "cluster_statuses": [ {{ "name": "{name}", "added_via_api": true, "host_statuses": [{}],
                 "circuit_breakers": {{ "thresholds": [{{ "max_connections": 1024 }}, {{ "priority": "HIGH" }}] }},
                 "observability_name": "{name}" }} ] }}"#,
            hosts.join(",")
        )
    }

    fn read(body: &str) -> Finding {
        read_one(200, body.as_bytes()).unwrap().finding
    }

    fn read_one(status: u32, body: &[u8]) -> Result<ClusterHosts, Unusable> {
        parse(status, &body, &["web"])?.clusters.remove(0)
    }

    #[test]
    fn a_host_has_an_address_a_weight_a_zone_and_a_priority() {
        let more = r#", "priority": 1, "hostname": "w", "locality": { "region": "eu", "zone": "eu-1", "sub_zone": "x" },
                       "success_rate": { "value": 99.5 }"#;
        let v6 =
            r#"{ "socket_address": { "protocol": "TCP", "address": "2001:db8::1", "port_value": 8081 } }"#;
        let healthy = r#""eds_health_status": "HEALTHY""#;
        let body = clusters("web", &[host(&ip(1), healthy, more), host(v6, healthy, "")]);
        let finding = read(&body);
        assert_eq!(finding.skipped, 0);
        let [first, second] = &finding.found[..] else { panic!("{finding:?}") };
        assert_eq!((first.address.to_string(), first.weight), ("10.0.0.1:8080".into(), Some(1.0)));
        assert_eq!((&*first.zone, first.priority), ("eu-1", Some(1)));
        assert_eq!((second.address.to_string(), second.priority), ("[2001:db8::1]:8081".into(), Some(0)));
        assert_eq!(second.condition, AnnouncedHealth::Serving);
    }

    #[test]
    fn every_flag_of_envoys_has_its_meaning() {
        use AnnouncedHealth::{Degraded, Draining, Serving, Unhealthy};
        for (health, expected) in [
            ("", Serving),
            (r#""eds_health_status": "UNKNOWN""#, Serving),
            (r#""failed_active_health_check": false"#, Serving),
            (r#""failed_active_health_check": true, "active_hc_timeout": true"#, Unhealthy),
            (r#""failed_outlier_check": true, "eds_health_status": "HEALTHY""#, Unhealthy),
            (r#""excluded_via_immediate_hc_fail": true"#, Unhealthy),
            (r#""pending_active_hc": true"#, Unhealthy),
            (r#""eds_health_status": "UNHEALTHY""#, Unhealthy),
            (r#""eds_health_status": "TIMEOUT""#, Unhealthy),
            (r#""failed_active_degraded_check": true"#, Degraded),
            (r#""failed_degraded_outlier_detection": true, "eds_health_status": "HEALTHY""#, Degraded),
            (r#""failed_degraded_outlier_detection": true, "failed_outlier_check": true"#, Unhealthy),
            (r#""eds_health_status": "DEGRADED", "failed_outlier_check": true"#, Unhealthy),
            (r#""eds_health_status": "DEGRADED""#, Degraded),
            (r#""eds_health_status": "DRAINING", "failed_active_health_check": true"#, Draining),
            (r#""pending_dynamic_removal": true"#, Serving),
            (r#""pending_dynamic_removal": true, "failed_active_health_check": true"#, Unhealthy),
            (r#""pending_dynamic_removal": true, "eds_health_status": "DRAINING""#, Draining),
            (r#""a_flag_of_tomorrow": { "x": 1 }"#, Serving),
        ] {
            let finding = read(&clusters("web", &[host(&ip(1), health, "")]));
            assert_eq!(finding.found[0].condition, expected, "{health}");
        }
    }

    #[test]
    fn hosts_without_an_ip_address_are_passed_over() {
        let hosts = [
            host(r#"{ "pipe": { "path": "/run/x.sock" } }"#, "", ""),
            host(r#"{ "envoy_internal_address": { "server_listener_name": "main" } }"#, "", ""),
            host(r#"{ "socket_address": { "address": "web.example", "port_value": 80 } }"#, "", ""),
            host(r#"{ "socket_address": { "address": "10.0.0.9" } }"#, "", ""),
            host(r#"{ "socket_address": { "address": "0.0.0.0", "port_value": 80 } }"#, "", ""),
            host(&ip(1), "", ""),
            host(&ip(1), "", ""),
        ];
        let finding = read(&clusters("web", &hosts));
        assert_eq!((finding.found.len(), finding.skipped), (1, 5));
        let none = read_one(200, clusters("web", &hosts[..5]).as_bytes());
        assert_eq!(none, Err(Unusable::NoAddresses(5)));
    }

    #[test]
    fn only_the_cluster_of_that_very_name_counts() {
        let other = clusters("web-2", &[host(&ip(1), "", "")]);
        assert_eq!(read_one(200, other.as_bytes()), Err(Unusable::NoSuchCluster));
        // Envoy's response if the filter matches nothing.
        assert_eq!(read_one(200, b"{}"), Err(Unusable::NoSuchCluster));
        assert_eq!(read(&clusters("web", &[])).found, []);
        assert_eq!(read(r#"{"cluster_statuses":[{"name":"web"},{"name":"api"}]}"#).found, []);
    }

    #[test]
    fn whatever_else_comes_back_is_named() {
        assert_eq!(read_one(503, b""), Err(Unusable::Status(503)));
        for body in
            ["", "[]", "<html>", "7", r#"{"cluster_statuses":{}}"#, r#"{"cluster_statuses":[1]}"#, "{}x"]
        {
            assert!(matches!(read_one(200, body.as_bytes()), Err(Unusable::Malformed(_))), "{body}");
        }
        let whole = clusters("web", &[host(&ip(1), "", "")]);
        for cut in 1..whole.len() {
            assert!(read_one(200, &whole.as_bytes()[..cut]).is_err(), "{cut}");
        }
    }

    #[test]
    fn one_answer_covers_several_clusters() {
        let all: Vec<String> = ["a", "web", "b", "c"]
            .iter()
            .map(|name| {
                format!(
                    r#"{{"name":"{name}","eds_service_name":"eds-{name}","host_statuses":[{}]}}"#,
                    host(&ip(1), "", "")
                )
            })
            .collect();
        let body = format!(r#"{{"cluster_statuses":[{}]}}"#, all.join(","));
        let listing = parse(200, &body.as_bytes(), &["c", "gone", "a"]).unwrap();
        assert_eq!(listing.others, 2);
        let [c, gone, a] = &listing.clusters[..] else { panic!("{listing:?}") };
        assert_eq!(*gone, Err(Unusable::NoSuchCluster));
        assert_eq!(c.as_ref().unwrap().eds_name.as_deref(), Some("eds-c"));
        assert_eq!(a.as_ref().unwrap().finding.found.len(), 1);
    }

    #[test]
    fn an_answer_may_be_larger_than_what_is_held_of_it() {
        let filler = host(&ip(1), "", "");
        let hosts = 12 * 1024 * 1024 / filler.len();
        let other = format!(r#"{{"name":"other","host_statuses":[{}]}}"#, vec![filler; hosts].join(","));
        let web = format!(r#"{{"name":"web","host_statuses":[{}]}}"#, host(&ip(2), "", ""));
        let body = format!(r#"{{"cluster_statuses":[{other},{web},{other}]}}"#);
        assert!(body.len() > 24 << 20);
        let listing = parse(200, &body.as_bytes(), &["web"]).unwrap();
        assert_eq!((listing.clusters[0].as_ref().unwrap().finding.found.len(), listing.others), (1, 2));
        let cut = &body.as_bytes()[..body.len() - 1];
        assert!(matches!(parse(200, &cut, &["web"]), Err(Unusable::Malformed(_))));
    }

    #[test]
    fn what_cannot_be_steered_to_is_counted_with_its_weight() {
        let pipe = r#"{ "pipe": { "path": "/run/x.sock" } }"#;
        let hosts = [
            host(&ip(1), "", ""),
            host(&ip(2), "", r#", "priority": 1"#),
            host(pipe, "", ""),
            host(pipe, r#""eds_health_status": "UNHEALTHY""#, ""),
            host(
                r#"{ "envoy_internal_address": { "server_listener_name": "main" } }"#,
                "",
                r#", "priority": 1"#,
            ),
            host(r#"{ "socket_address": { "address": "web.example", "port_value": 80 } }"#, "", ""),
        ];
        let finding = read(&clusters("web", &hosts));
        assert_eq!((finding.found.len(), finding.skipped), (2, 4));
        assert!((finding.unsteerable() - 2.0 / 3.0).abs() < 1e-9, "{}", finding.unsteerable());
        assert_eq!(finding.examples, ["a pipe", "an internal listener", "web.example:80"]);
    }

    #[test]
    fn a_weight_of_zero_is_none() {
        let of = |weight: &str| {
            let host = format!(r#"{{ "address": {}, "weight": {weight} }}"#, ip(1));
            read(&clusters("web", &[host])).found[0].weight
        };
        assert_eq!((of("0"), of("1"), of("128")), (None, Some(1.0), Some(128.0)));
    }
}
