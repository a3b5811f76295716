//! The fleet equals a plain map under any sequence of updates.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use engine::endpoint::{EndpointRef, EndpointSet, Spec};
use engine::rng;
use proptest::collection::vec;
use proptest::prelude::*;

fn spec((host, port, weight): (u8, u16, u8)) -> Spec {
    let address = match host {
        0 => SocketAddr::from(([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1], port)),
        _ => SocketAddr::from(([10, 0, 0, host], port)),
    };
    Spec { weight: f64::from(weight), ..Spec::at(address) }
}

fn update() -> impl Strategy<Value = Vec<Spec>> {
    vec((0u8..4, 1u16..5, 1u8..9).prop_map(spec), 0..20)
}

proptest! {
    #![proptest_config(crate::seeded(400))]

    #[test]
    fn endpoint_set_follows_the_last_update(updates in vec(update(), 1..20)) {
        let mut fleet = EndpointSet::default();
        let mut before: BTreeMap<SocketAddr, EndpointRef> = BTreeMap::new();
        let mut most = 0;
        for specs in updates {
            let mut wanted: BTreeMap<SocketAddr, f64> = BTreeMap::new();
            specs.iter().for_each(|s| _ = wanted.entry(s.address).or_insert(s.weight));
            let changes = fleet.update(&specs);
            most = most.max(wanted.len());

            let mut now = BTreeMap::new();
            for (address, weight) in &wanted {
                let index = fleet.index_of_text(address.to_string().as_bytes());
                let index = index.expect("everybody who is wanted is found by the text that Envoy prints");
                let endpoint = fleet.get(index).expect("an endpoint");
                prop_assert_eq!(f64::from(endpoint.weight), *weight, "the first of two counts");
                prop_assert_eq!(fleet.index_of_hash(rng::hash(endpoint.text.as_bytes())), Some(index));
                now.insert(*address, fleet.reference(index).expect("a reference"));
            }
            prop_assert_eq!(fleet.len(), wanted.len());
            prop_assert_eq!(fleet.is_empty(), wanted.is_empty());
            let listed: BTreeSet<SocketAddr> = fleet.iter().map(|(_, e)| e.address()).collect();
            prop_assert_eq!(listed.into_iter().collect::<Vec<_>>(), wanted.keys().copied().collect::<Vec<_>>());
            let places: BTreeSet<u32> = now.values().map(|r| r.index).collect();
            prop_assert_eq!(places.len(), now.len(), "a place has one endpoint");
            prop_assert!(places.iter().all(|i| (*i as usize) < fleet.places()));
            prop_assert!(fleet.places() <= 2 * most, "{} places for {most}", fleet.places());

            for (address, reference) in &before {
                match now.get(address) {
                    Some(same) => prop_assert_eq!(same, reference, "who stays keeps the place"),
                    None => prop_assert!(!fleet.is_current(*reference)),
                }
            }
            let joined: BTreeSet<u32> = changes.joined.iter().copied().collect();
            let new = now.iter().filter(|(a, _)| !before.contains_key(a)).map(|(_, r)| r.index).collect();
            prop_assert_eq!(joined, new);
            let left: BTreeSet<u32> = changes.left.iter().copied().collect();
            let gone = before.iter().filter(|(a, _)| !now.contains_key(a)).map(|(_, r)| r.index).collect();
            prop_assert_eq!(left, gone);
            before = now;
        }
    }
}
