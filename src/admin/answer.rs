//! What Envoy answered: the hosts of one cluster, and how they stand.

use core::fmt;
use core::net::{IpAddr, SocketAddr};
use std::borrow::Cow;

use serde::de::{DeserializeSeed, MapAccess};

use crate::fleet::{Condition, Finding, Found};
use crate::json::{Array, Fields, Object, skip};
use crate::printable::printable;

/// Enough for some eight thousand hosts.
const MOST_BYTES: usize = 8 * 1024 * 1024;
const MOST_SHOWN: usize = 200;

/// Why an answer says nothing about a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unusable {
    /// As many bytes as are read, or more.
    TooLarge,
    /// An HTTP status other than 200.
    Status(u32),
    /// Not what Envoy answers: the reason, printable.
    Malformed(String),
    /// Envoy has no such cluster.
    NoSuchCluster,
    /// So many hosts, and none of them has an IP address.
    NoAddresses(usize),
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unusable::TooLarge => write!(f, "the answer has {MOST_BYTES} bytes or more"),
            Unusable::Status(status) => write!(f, "HTTP status {status}"),
            Unusable::Malformed(reason) => {
                write!(f, "not an answer of Envoy's admin interface: {reason}")
            }
            Unusable::NoSuchCluster => f.write_str("Envoy has no cluster of that name"),
            Unusable::NoAddresses(hosts) => write!(f, "none of {hosts} hosts has an IP address"),
        }
    }
}

impl core::error::Error for Unusable {}

/// Reads the answer to [`request_path`](super::request_path) for `cluster`.
pub fn parse(status: u32, body: &[u8], cluster: &str) -> Result<Finding, Unusable> {
    if status != 200 {
        return Err(Unusable::Status(status));
    }
    if body.len() >= MOST_BYTES {
        return Err(Unusable::TooLarge);
    }
    let mut statuses = Statuses { cluster, known: false, finding: Finding::default() };
    let mut input = serde_json::Deserializer::from_slice(body);
    let read = Object(&mut statuses).deserialize(&mut input).and_then(|()| input.end());
    read.map_err(|error| Unusable::Malformed(printable(&error.to_string(), MOST_SHOWN)))?;
    let Statuses { known, finding, .. } = statuses;
    match finding.found.is_empty() {
        _ if !known => Err(Unusable::NoSuchCluster),
        true if finding.skipped > 0 => Err(Unusable::NoAddresses(finding.skipped)),
        _ => Ok(finding),
    }
}

/// `{"cluster_statuses": [cluster, …]}`, of which one is looked for: Envoy may have others that match the filter.
struct Statuses<'c> {
    cluster: &'c str,
    known: bool,
    finding: Finding,
}

impl<'de> Fields<'de> for Statuses<'_> {
    fn field<A: MapAccess<'de>>(&mut self, key: &str, object: &mut A) -> Result<(), A::Error> {
        if key != "cluster_statuses" {
            return skip(object);
        }
        object.next_value_seed(Array::of(|one: Cluster| {
            if one.name == self.cluster {
                self.known = true;
                self.finding = one.finding;
            }
        }))
    }
}

#[derive(Default)]
struct Cluster {
    name: String,
    finding: Finding,
}

impl<'de> Fields<'de> for Cluster {
    fn field<A: MapAccess<'de>>(&mut self, key: &str, object: &mut A) -> Result<(), A::Error> {
        match key {
            "name" => self.name = object.next_value()?,
            "host_statuses" => object.next_value_seed(Array::of(|host: Host| match host.found() {
                Some(found) => self.finding.add(found),
                None => self.finding.skipped += 1,
            }))?,
            _ => skip(object)?,
        }
        Ok(())
    }
}

#[derive(Default)]
struct Host {
    address: Address,
    health: Health,
    weight: Option<u32>,
    priority: u32,
    locality: Locality,
}

impl<'de> Fields<'de> for Host {
    fn field<A: MapAccess<'de>>(&mut self, key: &str, object: &mut A) -> Result<(), A::Error> {
        match key {
            "address" => object.next_value_seed(Object(&mut self.address))?,
            "health_status" => object.next_value_seed(Object(&mut self.health))?,
            "weight" => self.weight = object.next_value()?,
            "priority" => self.priority = object.next_value()?,
            "locality" => object.next_value_seed(Object(&mut self.locality))?,
            _ => skip(object)?,
        }
        Ok(())
    }
}

impl Host {
    /// The endpoint, unless it is a pipe, a listener inside Envoy or anything else without an IP address.
    fn found(self) -> Option<Found> {
        let ip: IpAddr = self.address.socket.ip.parse().ok()?;
        let port = u16::try_from(self.address.socket.port).ok().filter(|port| *port != 0)?;
        if ip.is_unspecified() {
            return None;
        }
        Some(Found {
            weight: self.weight.filter(|weight| *weight > 0).map(f64::from),
            zone: self.locality.zone,
            priority: Some(self.priority),
            condition: self.health.condition,
            ..Found::at(SocketAddr::new(ip, port))
        })
    }
}

/// An address of one kind or another, of which only sockets are read.
#[derive(Default)]
struct Address {
    socket: Socket,
}

impl<'de> Fields<'de> for Address {
    fn field<A: MapAccess<'de>>(&mut self, key: &str, object: &mut A) -> Result<(), A::Error> {
        match key {
            "socket_address" => object.next_value_seed(Object(&mut self.socket)),
            _ => skip(object),
        }
    }
}

#[derive(Default)]
struct Socket {
    ip: String,
    port: u32,
}

impl<'de> Fields<'de> for Socket {
    fn field<A: MapAccess<'de>>(&mut self, key: &str, object: &mut A) -> Result<(), A::Error> {
        match key {
            "address" => self.ip = object.next_value()?,
            "port_value" => self.port = object.next_value()?,
            _ => skip(object)?,
        }
        Ok(())
    }
}

#[derive(Default)]
struct Locality {
    zone: String,
}

impl<'de> Fields<'de> for Locality {
    fn field<A: MapAccess<'de>>(&mut self, key: &str, object: &mut A) -> Result<(), A::Error> {
        match key {
            "zone" => self.zone = object.next_value()?,
            _ => skip(object)?,
        }
        Ok(())
    }
}

/// The worst of what is said of a host's health.
#[derive(Default)]
struct Health {
    condition: Condition,
}

impl<'de> Fields<'de> for Health {
    fn field<A: MapAccess<'de>>(&mut self, key: &str, object: &mut A) -> Result<(), A::Error> {
        let said = match key {
            "eds_health_status" => match &*object.next_value::<Cow<'_, str>>()? {
                "UNHEALTHY" | "TIMEOUT" => Condition::Unhealthy,
                "DRAINING" => Condition::Draining,
                "DEGRADED" => Condition::Degraded,
                _ => Condition::Serving,
            },
            flag => {
                let meaning = match flag {
                    "failed_active_health_check"
                    | "failed_outlier_check"
                    | "excluded_via_immediate_hc_fail"
                    | "pending_active_hc" => Condition::Unhealthy,
                    "failed_active_degraded_check" => Condition::Degraded,
                    // Its control plane no longer lists it; it stays only until it fails a health check.
                    "pending_dynamic_removal" => Condition::Draining,
                    _ => return skip(object),
                };
                if object.next_value()? { meaning } else { Condition::Serving }
            }
        };
        self.condition = self.condition.max(said);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #[cfg(all(target_family = "wasm", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    /// As Envoy prints one host, all of its counters included.
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
        parse(200, body.as_bytes(), "web").unwrap()
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
        assert_eq!(second.condition, Condition::Serving);
    }

    #[test]
    fn every_flag_of_envoys_has_its_meaning() {
        use Condition::{Degraded, Draining, Serving, Unhealthy};
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
            (r#""eds_health_status": "DEGRADED", "failed_outlier_check": true"#, Unhealthy),
            (r#""eds_health_status": "DEGRADED""#, Degraded),
            (r#""eds_health_status": "DRAINING", "failed_active_health_check": true"#, Draining),
            (r#""pending_dynamic_removal": true"#, Draining),
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
        let none = parse(200, clusters("web", &hosts[..5]).as_bytes(), "web");
        assert_eq!(none, Err(Unusable::NoAddresses(5)));
    }

    #[test]
    fn only_the_cluster_of_that_very_name_counts() {
        let other = clusters("web-2", &[host(&ip(1), "", "")]);
        assert_eq!(parse(200, other.as_bytes(), "web"), Err(Unusable::NoSuchCluster));
        // What Envoy prints where the filter matches nothing.
        assert_eq!(parse(200, b"{}", "web"), Err(Unusable::NoSuchCluster));
        assert_eq!(read(&clusters("web", &[])).found, []);
        assert_eq!(read(r#"{"cluster_statuses":[{"name":"web"},{"name":"api"}]}"#).found, []);
    }

    #[test]
    fn whatever_else_comes_back_is_named() {
        assert_eq!(parse(503, b"", "web"), Err(Unusable::Status(503)));
        for body in
            ["", "[]", "<html>", "7", r#"{"cluster_statuses":{}}"#, r#"{"cluster_statuses":[1]}"#, "{}x"]
        {
            assert!(matches!(parse(200, body.as_bytes(), "web"), Err(Unusable::Malformed(_))), "{body}");
        }
        let whole = clusters("web", &[host(&ip(1), "", "")]);
        for cut in 1..whole.len() {
            assert!(parse(200, &whole.as_bytes()[..cut], "web").is_err(), "{cut}");
        }
        assert_eq!(parse(200, &vec![b' '; MOST_BYTES], "web"), Err(Unusable::TooLarge));
    }
}
