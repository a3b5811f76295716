//! Locality weights of Envoy clusters.
//!
//! Envoy divides the requests of a cluster with locality weights before it looks at its hosts; control planes split
//! traffic between a release and its canary that way. A locality whose weight is proportional to its endpoints' weights
//! changes nothing, and ignoring it leaves the balancer freer.

use hashbrown::HashMap;

use crate::discovery::found::Found;

/// The relative difference below which shares count as equal.
const EQUAL: f64 = 0.02;

/// A locality at one priority.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Locality {
    /// Priority; 0 is used first.
    pub priority: u32,
    /// Region, zone and sub-zone.
    pub name: String,
    /// Its weight among the localities of its priority; 0 if it has none.
    pub weight: u32,
    /// The sum of its endpoints' weights.
    pub hosts: f64,
}

/// Whether the endpoints are in several localities of one priority, so that locality weights can matter.
pub fn are_several(found: &[Found]) -> bool {
    let mut first: HashMap<u32, &str> = HashMap::new();
    found.iter().any(|found| {
        *first.entry(found.priority.unwrap_or(0)).or_insert(&found.locality) != found.locality.as_str()
    })
}

/// Sets the locality weights of endpoints, at the priorities where they change the shares.
pub fn weigh(found: &mut [Found], localities: &[Locality]) {
    let mut weights: HashMap<(u32, &str), f64> = HashMap::new();
    let mut priorities: HashMap<u32, Vec<&Locality>> = HashMap::new();
    localities.iter().for_each(|locality| priorities.entry(locality.priority).or_default().push(locality));
    for here in priorities.values().filter(|here| divides(here)) {
        for locality in here {
            *weights.entry((locality.priority, &locality.name)).or_default() += f64::from(locality.weight);
        }
    }
    assign(found, &weights);
}

/// Gives endpoints the locality weights that were in force `before`, while those of their localities are not known.
pub fn keep(found: &mut [Found], before: &[Found]) {
    let weights = before.iter().filter_map(|found| Some((place(found), found.locality_weight?))).collect();
    assign(found, &weights);
}

/// The priority and the locality of an endpoint.
fn place(found: &Found) -> (u32, &str) {
    (found.priority.unwrap_or(0), &found.locality)
}

fn assign(found: &mut [Found], weights: &HashMap<(u32, &str), f64>) {
    for found in found {
        found.locality_weight = weights.get(&place(found)).copied();
    }
}

/// Whether locality weights give these localities of one priority other shares than their endpoints' weights do.
fn divides(localities: &[&Locality]) -> bool {
    let weight: f64 = localities.iter().map(|locality| f64::from(locality.weight)).sum();
    let hosts: f64 = localities.iter().map(|locality| locality.hosts).sum();
    let differs = |locality: &&Locality| {
        let (weighted, alone) = (f64::from(locality.weight) / weight, locality.hosts / hosts);
        (weighted - alone).abs() > EQUAL * alone.max(weighted)
    };
    localities.len() > 1 && weight > 0.0 && hosts > 0.0 && localities.iter().any(differs)
}

#[cfg(test)]
mod tests {
    #[cfg(all(target_family = "wasm", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    fn found(port: u16, priority: u32, locality: &str) -> Found {
        let address = ([10, 0, 0, 1], port).into();
        Found { priority: Some(priority), locality: locality.into(), ..Found::at(address) }
    }

    fn locality(priority: u32, name: &str, weight: u32, hosts: f64) -> Locality {
        Locality { priority, name: name.into(), weight, hosts }
    }

    fn weighed(localities: &[Locality]) -> Vec<Option<f64>> {
        let mut all = [found(1, 0, "a"), found(2, 0, "a"), found(3, 0, "b"), found(4, 1, "c")];
        weigh(&mut all, localities);
        all.iter().map(|found| found.locality_weight).collect()
    }

    #[test]
    fn weights_of_localities_count_where_they_divide() {
        let canary = [locality(0, "a", 99, 2.0), locality(0, "b", 1, 1.0), locality(1, "c", 5, 1.0)];
        assert_eq!(weighed(&canary), [Some(99.0), Some(99.0), Some(1.0), None]);
        let nothing_for_one = [locality(0, "a", 7, 2.0), locality(0, "b", 0, 1.0)];
        assert_eq!(weighed(&nothing_for_one), [Some(7.0), Some(7.0), Some(0.0), None]);
    }

    #[test]
    fn weights_equal_to_their_endpoints_divide_nothing() {
        for localities in [
            &[locality(0, "a", 2, 2.0), locality(0, "b", 1, 1.0)][..],
            &[locality(0, "a", 0, 2.0), locality(0, "b", 0, 1.0)],
            &[locality(0, "a", 9, 2.0), locality(1, "c", 1, 1.0)],
            &[],
        ] {
            assert_eq!(weighed(localities), [None; 4], "{localities:?}");
        }
    }

    #[test]
    fn weights_that_were_in_force_are_kept_by_priority_and_locality() {
        let mut before = [found(1, 0, "a"), found(2, 0, "b"), found(3, 1, "b")];
        (before[0].locality_weight, before[1].locality_weight) = (Some(7.0), Some(0.0));
        let mut now =
            [found(4, 0, "b"), found(5, 0, "a"), found(6, 1, "a"), found(3, 1, "b"), found(7, 0, "c")];
        now[2].locality_weight = Some(3.0);
        keep(&mut now, &before);
        let weights = now.map(|found| found.locality_weight);
        assert_eq!(weights, [Some(0.0), Some(7.0), None, None, None]);
    }

    #[test]
    fn several_localities_of_one_priority_are_worth_a_question() {
        assert!(are_several(&[found(1, 0, "a"), found(2, 0, "b")]));
        assert!(!are_several(&[found(1, 0, "a"), found(2, 1, "b"), found(3, 0, "a")]));
        assert!(!are_several(&[]));
    }
}
