//! What the localities of a cluster are to get, as Envoy was told: `/config_dump?include_eds`.

use serde::de::MapAccess;

use super::answer::{Place, Unusable, unusable};
use super::reader;
use crate::discovery::json::{Array, Fields, Object, skip};
use crate::discovery::localities::Locality;
use crate::host::Body;

/// Localities of a cluster that are kept; more say nothing that a request could be divided by.
const MOST: usize = 1000;

/// Reads the answer to [`localities_path`](super::localities_path); the localities of each of `clusters`, none of one that
/// the answer does not name.
pub fn parse(status: u32, body: &dyn Body, clusters: &[&str]) -> Result<Vec<Vec<Locality>>, Unusable> {
    if status != 200 {
        return Err(Unusable::Status(status));
    }
    let mut dump = Dump { clusters, localities: vec![Vec::new(); clusters.len()] };
    reader::read(body, &mut dump).map_err(unusable)?;
    Ok(dump.localities)
}

struct Dump<'c> {
    clusters: &'c [&'c str],
    localities: Vec<Vec<Locality>>,
}

impl<'de> Fields<'de> for Dump<'_> {
    fn field<A: MapAccess<'de>>(&mut self, key: &str, object: &mut A) -> Result<(), A::Error> {
        if key != "configs" {
            return skip(object);
        }
        object.next_value_seed(Array::of(|config: Config| {
            for assignment in config.assignments {
                let at = self.clusters.iter().position(|cluster| *cluster == assignment.cluster);
                if let Some(localities) = at.and_then(|at| self.localities.get_mut(at)) {
                    *localities = assignment.localities;
                }
            }
        }))
    }
}

#[derive(Default)]
struct Config {
    assignments: Vec<Assignment>,
}

impl<'de> Fields<'de> for Config {
    fn field<A: MapAccess<'de>>(&mut self, key: &str, object: &mut A) -> Result<(), A::Error> {
        match key {
            "static_endpoint_configs" | "dynamic_endpoint_configs" => {
                object.next_value_seed(Array::of(|one: Wrapped| self.assignments.push(one.assignment)))
            }
            _ => skip(object),
        }
    }
}

#[derive(Default)]
struct Wrapped {
    assignment: Assignment,
}

impl<'de> Fields<'de> for Wrapped {
    fn field<A: MapAccess<'de>>(&mut self, key: &str, object: &mut A) -> Result<(), A::Error> {
        match key {
            "endpoint_config" => object.next_value_seed(Object(&mut self.assignment)),
            _ => skip(object),
        }
    }
}

#[derive(Default)]
struct Assignment {
    cluster: String,
    localities: Vec<Locality>,
}

impl<'de> Fields<'de> for Assignment {
    fn field<A: MapAccess<'de>>(&mut self, key: &str, object: &mut A) -> Result<(), A::Error> {
        match key {
            "cluster_name" => self.cluster = object.next_value()?,
            "endpoints" => object.next_value_seed(Array::of(|one: Group| {
                if self.localities.len() < MOST {
                    let Group { place, locality } = one;
                    self.localities.push(Locality { name: place.name(), ..locality });
                }
            }))?,
            _ => skip(object)?,
        }
        Ok(())
    }
}

#[derive(Default)]
struct Group {
    place: Place,
    locality: Locality,
}

impl<'de> Fields<'de> for Group {
    fn field<A: MapAccess<'de>>(&mut self, key: &str, object: &mut A) -> Result<(), A::Error> {
        match key {
            "locality" => object.next_value_seed(Object(&mut self.place))?,
            "load_balancing_weight" => self.locality.weight = object.next_value()?,
            "priority" => self.locality.priority = object.next_value()?,
            "lb_endpoints" => object.next_value_seed(Array::of(|one: Host| {
                self.locality.hosts += f64::from(one.weight.unwrap_or(1));
            }))?,
            _ => skip(object)?,
        }
        Ok(())
    }
}

#[derive(Default)]
struct Host {
    weight: Option<u32>,
}

impl<'de> Fields<'de> for Host {
    fn field<A: MapAccess<'de>>(&mut self, key: &str, object: &mut A) -> Result<(), A::Error> {
        match key {
            "load_balancing_weight" => self.weight = object.next_value()?,
            _ => skip(object)?,
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #[cfg(all(target_family = "wasm", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    /// As Envoy 1.40 prints it.
    const DUMP: &str = r#"{ "configs": [ { "@type": "type.googleapis.com/envoy.admin.v3.EndpointsConfigDump",
        "static_endpoint_configs": [ { "endpoint_config": { "cluster_name": "web", "endpoints": [
            { "locality": { "region": "r", "zone": "a" }, "lb_endpoints": [
                { "endpoint": { "address": { "pipe": { "path": "/x" } } }, "health_status": "HEALTHY", "load_balancing_weight": 1 },
                { "load_balancing_weight": 3 } ], "load_balancing_weight": 99 },
            { "locality": {}, "lb_endpoints": [ { "health_status": "HEALTHY" } ], "load_balancing_weight": 0, "priority": 1 }
        ], "policy": { "overprovisioning_factor": 140 } } } ],
        "dynamic_endpoint_configs": [ { "endpoint_config": { "cluster_name": "api", "endpoints": [ { "load_balancing_weight": 7 } ] } } ]
        } ] }"#;

    #[test]
    fn localities_have_a_priority_a_name_and_a_weight() {
        let read = parse(200, &DUMP.as_bytes(), &["api", "other", "web"]).unwrap();
        let locality =
            |priority, name: &str, weight, hosts| Locality { priority, name: name.into(), weight, hosts };
        assert_eq!(read[0], [locality(0, "", 7, 0.0)]);
        assert_eq!(read[1], []);
        assert_eq!(read[2], [locality(0, "r/a", 99, 4.0), locality(1, "", 0, 1.0)]);
    }

    #[test]
    fn whatever_else_comes_back_is_named() {
        assert_eq!(parse(403, &&b""[..], &["web"]), Err(Unusable::Status(403)));
        assert!(matches!(parse(200, &&b"<html>"[..], &["web"]), Err(Unusable::Malformed(_))));
        for cut in 1..DUMP.len() {
            assert!(parse(200, &&DUMP.as_bytes()[..cut], &["web"]).is_err(), "{cut}");
        }
    }
}
