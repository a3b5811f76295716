//! The locality weights of clusters, as Envoy was told: `/config_dump?include_eds`.

use super::answer::{LocalityName, Unusable};
use super::scanner::{Scanner, Unreadable};
use crate::discovery::localities::Locality;
use crate::host::Body;

/// The highest number of localities of a cluster that are kept; more could not be used to divide requests.
const MOST: usize = 1000;

/// Reads the response to [`localities_path`](super::localities_path): the localities of each of `clusters`, none for a
/// cluster that is not in it.
#[inline(never)]
pub fn parse(status: u32, body: &dyn Body, clusters: &[&str]) -> Result<Vec<Vec<Locality>>, Unusable> {
    if status != 200 {
        return Err(Unusable::Status(status));
    }
    let mut found = vec![Vec::new(); clusters.len()];
    let mut scanner = Scanner::new(body);
    scanner.object(&["configs"], &mut |scanner, _| {
        scanner.array(&mut |scanner| {
            scanner.object(&["static_endpoint_configs", "dynamic_endpoint_configs"], &mut |scanner, _| {
                scanner.array(&mut |scanner| {
                    scanner.object(&["endpoint_config"], &mut |scanner, _| {
                        let one = Assignment::read(scanner, clusters)?;
                        let at = clusters.iter().position(|cluster| *cluster == one.cluster);
                        if let Some(found) = at.and_then(|at| found.get_mut(at)) {
                            *found = one.localities;
                        }
                        Ok(())
                    })
                })
            })
        })
    })?;
    scanner.end()?;
    Ok(found)
}

struct Assignment {
    cluster: String,
    localities: Vec<Locality>,
}

impl Assignment {
    /// Reads a cluster's assignment; of a cluster that was not `asked` for, only the name.
    #[inline(never)]
    fn read(scanner: &mut Scanner<'_>, asked: &[&str]) -> Result<Assignment, Unreadable> {
        let (mut cluster, mut localities) = (String::new(), Vec::new());
        scanner.object(&["cluster_name", "endpoints"], &mut |scanner, field| match field {
            "cluster_name" => scanner.value().map(|name| cluster = name),
            _ if !cluster.is_empty() && !asked.contains(&&*cluster) => scanner.skip(),
            _ => scanner.array(&mut |scanner| {
                let locality = read_locality(scanner)?;
                if localities.len() < MOST {
                    localities.push(locality);
                }
                Ok(())
            }),
        })?;
        Ok(Assignment { cluster, localities })
    }
}

#[inline(never)]
fn read_locality(scanner: &mut Scanner<'_>) -> Result<Locality, Unreadable> {
    let (mut name, mut locality) = (LocalityName::default(), Locality::default());
    let fields = ["locality", "load_balancing_weight", "priority", "lb_endpoints"];
    scanner.object(&fields, &mut |scanner, field| match field {
        "locality" => scanner.read(&mut name),
        "load_balancing_weight" => scanner.value().map(|weight| locality.weight = weight),
        "priority" => scanner.value().map(|priority| locality.priority = priority),
        _ => scanner.array(&mut |scanner| {
            let mut weight = None::<u32>;
            scanner
                .object(&["load_balancing_weight"], &mut |scanner, _| scanner.value().map(|w| weight = w))?;
            locality.hosts += f64::from(weight.unwrap_or(1));
            Ok(())
        }),
    })?;
    Ok(Locality { name: name.name(), ..locality })
}

#[cfg(test)]
mod tests {
    #[cfg(all(target_family = "wasm", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    /// The format of Envoy 1.40.
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
