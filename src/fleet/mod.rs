//! Who the endpoints are: identity, weight, zone, version, under an index that stays valid while they come and go.

mod condition;
mod found;
mod merge;
mod source;

use core::net::SocketAddr;
use std::rc::Rc;

use hashbrown::{HashMap, HashSet, HashTable};

use crate::random;

pub use condition::Condition;
pub(crate) use found::WEIGHTS;
pub use found::{Finding, Found};
pub use merge::{Merged, Sources};
pub use source::{Origin, Source};

/// What a source says of one endpoint.
#[derive(Clone, Debug, PartialEq)]
pub struct Spec {
    /// Where it listens.
    pub address: SocketAddr,
    /// Relative capacity, > 0.
    pub weight: f64,
    /// Zone, empty if unknown.
    pub zone: String,
    /// 0 is used first.
    pub priority: u32,
    /// Version, empty if unknown.
    pub version: String,
    /// How it stands with those who announce it.
    pub condition: Condition,
}

impl Spec {
    /// An endpoint of which nothing is known but where it listens.
    pub fn at(address: SocketAddr) -> Spec {
        Spec {
            address,
            weight: 1.0,
            zone: String::new(),
            priority: 0,
            version: String::new(),
            condition: Condition::Serving,
        }
    }
}

impl From<&crate::config::StaticEndpoint> for Spec {
    fn from(endpoint: &crate::config::StaticEndpoint) -> Spec {
        Spec {
            address: endpoint.address,
            weight: endpoint.weight,
            zone: endpoint.zone.clone(),
            priority: endpoint.priority,
            version: endpoint.version.clone(),
            condition: Condition::Serving,
        }
    }
}

/// An endpoint of the fleet, for as long as its generation lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndpointRef {
    /// Position in [`Fleet`] and in everything kept beside it.
    pub index: u32,
    /// Tells a reused position from the endpoint that had it before.
    pub generation: u32,
}

/// One endpoint with what is derived from its identity once, so that no request has to format it.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// `ip:port` as Envoy prints it.
    pub text: Box<str>,
    /// Stable identity between workers: [`random::hash`] of `text`.
    pub hash: u64,
    /// Relative capacity, > 0.
    pub weight: f64,
    /// One for all endpoints that have both in common.
    names: Option<Rc<Names>>,
    /// 0 is used first.
    pub priority: u32,
    /// How it stands with those who announce it.
    pub condition: Condition,
}

/// What many endpoints have in common.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Names {
    zone: Box<str>,
    version: Box<str>,
}

impl Endpoint {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        // It was printed from one.
        self.text.parse().unwrap_or_else(|_| SocketAddr::from(([0; 4], 0)))
    }

    /// Zone, empty if unknown.
    pub fn zone(&self) -> &str {
        self.names.as_ref().map_or("", |names| &names.zone)
    }

    /// Version, empty if unknown.
    pub fn version(&self) -> &str {
        self.names.as_ref().map_or("", |names| &names.version)
    }

    fn tell(&mut self, spec: &Spec, names: &mut HashSet<Rc<Names>>) {
        self.weight = spec.weight;
        self.priority = spec.priority;
        self.condition = spec.condition;
        if (self.zone(), self.version()) == (&*spec.zone, &*spec.version) {
            return;
        }
        let named = Names { zone: spec.zone.as_str().into(), version: spec.version.as_str().into() };
        let anonymous = named.zone.is_empty() && named.version.is_empty();
        self.names =
            (!anonymous).then(|| Rc::clone(names.get_or_insert_with(&named, |named| Rc::new(named.clone()))));
    }
}

#[derive(Clone, Debug, Default)]
struct Place {
    endpoint: Option<Endpoint>,
    generation: u32,
}

/// What an [`update`](Fleet::update) changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Indices of endpoints that are new.
    pub joined: Vec<u32>,
    /// Indices that are now vacant.
    pub left: Vec<u32>,
}

/// The endpoints of one upstream.
#[derive(Clone, Debug, Default)]
pub struct Fleet {
    places: Vec<Place>,
    vacant: Vec<u32>,
    /// Indices by identity.
    by_hash: HashTable<u32>,
}

impl Fleet {
    /// Makes `specs` the fleet. Who stays keeps the index; the first of two equal addresses counts.
    pub fn update(&mut self, specs: &[Spec]) -> Changes {
        let mut changes = Changes::default();
        let mut wanted: HashMap<u64, &Spec> = HashMap::with_capacity(specs.len());
        let mut order = Vec::with_capacity(specs.len());
        for spec in specs {
            let text = spec.address.to_string();
            let hash = random::hash(text.as_bytes());
            if wanted.contains_key(&hash) {
                continue;
            }
            wanted.insert(hash, spec);
            order.push((hash, text));
        }
        let named = self.places.iter().filter_map(|place| place.endpoint.as_ref()?.names.clone());
        let mut names: HashSet<Rc<Names>> = named.collect();
        for (index, place) in (0u32..).zip(self.places.iter_mut()) {
            let Some(endpoint) = &mut place.endpoint else { continue };
            let hash = endpoint.hash;
            match wanted.get(&hash) {
                Some(spec) => endpoint.tell(spec, &mut names),
                None => {
                    place.endpoint = None;
                    place.generation = place.generation.wrapping_add(1);
                    if let Ok(entry) = self.by_hash.find_entry(hash, |at| *at == index) {
                        entry.remove();
                    }
                    changes.left.push(index);
                }
            }
        }
        for (hash, text) in order {
            let Some(spec) = wanted.get(&hash) else { continue };
            if self.index_of_hash(hash).is_some() {
                continue;
            }
            let text = text.into();
            let (weight, priority, condition) = (spec.weight, spec.priority, spec.condition);
            let mut endpoint = Endpoint { text, hash, weight, names: None, priority, condition };
            endpoint.tell(spec, &mut names);
            let index = self.settle(endpoint);
            let places = &self.places;
            let hash_of = |at: &u32| places.get(*at as usize).and_then(|p| Some(p.endpoint.as_ref()?.hash));
            self.by_hash.insert_unique(hash, index, |at| hash_of(at).unwrap_or_default());
            changes.joined.push(index);
        }
        self.vacant.extend(&changes.left);
        self.places.shrink_to_fit();
        changes
    }

    /// Puts an endpoint into a place that was vacant before this update, or a new one.
    fn settle(&mut self, endpoint: Endpoint) -> u32 {
        if let Some(index) = self.vacant.pop() {
            if let Some(place) = self.places.get_mut(index as usize) {
                place.endpoint = Some(endpoint);
            }
            return index;
        }
        self.places.push(Place { generation: 0, endpoint: Some(endpoint) });
        (self.places.len() - 1) as u32
    }

    /// How many places there are, vacant ones included: the bound of every index.
    pub fn places(&self) -> usize {
        self.places.len()
    }

    /// How many endpoints there are.
    pub fn len(&self) -> usize {
        self.by_hash.len()
    }

    /// Whether there is no endpoint.
    pub fn is_empty(&self) -> bool {
        self.by_hash.is_empty()
    }

    /// The endpoint at `index`.
    pub fn get(&self, index: u32) -> Option<&Endpoint> {
        self.places.get(index as usize)?.endpoint.as_ref()
    }

    /// A reference to the endpoint at `index` that notices when the place changes hands.
    pub fn reference(&self, index: u32) -> Option<EndpointRef> {
        let place = self.places.get(index as usize)?;
        place.endpoint.as_ref().map(|_| EndpointRef { index, generation: place.generation })
    }

    /// Whether `reference` still names the endpoint it was made for.
    pub fn is_current(&self, reference: EndpointRef) -> bool {
        self.reference(reference.index) == Some(reference)
    }

    /// The endpoint with this identity.
    pub fn index_of_hash(&self, hash: u64) -> Option<u32> {
        self.by_hash.find(hash, |at| self.get(*at).is_some_and(|e| e.hash == hash)).copied()
    }

    /// The endpoint that Envoy prints as `text`.
    pub fn index_of_text(&self, text: &[u8]) -> Option<u32> {
        let index = self.index_of_hash(random::hash(text))?;
        self.get(index).filter(|e| e.text.as_bytes() == text).map(|_| index)
    }

    /// All endpoints with their indices.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &Endpoint)> {
        (0u32..).zip(&self.places).filter_map(|(index, place)| Some((index, place.endpoint.as_ref()?)))
    }
}

#[cfg(test)]
mod tests {
    #[cfg(all(target_family = "wasm", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    fn specs(ports: &[u16]) -> Vec<Spec> {
        ports.iter().map(|p| Spec::at(SocketAddr::from(([127, 0, 0, 1], *p)))).collect()
    }

    #[test]
    fn who_stays_keeps_the_index_and_who_returns_gets_a_new_generation() {
        let mut fleet = Fleet::default();
        assert_eq!(fleet.update(&specs(&[1, 2, 3])).joined, [0, 1, 2]);
        let second = fleet.reference(1).unwrap();
        let changes = fleet.update(&specs(&[3, 1]));
        assert_eq!((changes.joined, changes.left), (vec![], vec![1]));
        assert!(!fleet.is_current(second));
        assert_eq!(fleet.update(&specs(&[1, 2, 3])).joined, [1]);
        assert!(!fleet.is_current(second), "the place is the same, the endpoint is not");
        assert_eq!(fleet.len(), 3);
    }

    #[test]
    fn churn_does_not_grow_the_fleet() {
        let mut fleet = Fleet::default();
        for round in 0..500u16 {
            fleet.update(&specs(&[round * 3 + 1, round * 3 + 2, round * 3 + 3]));
        }
        assert!(fleet.places() <= 6, "{}", fleet.places());
    }

    #[test]
    fn finds_by_the_text_that_envoy_prints() {
        let mut fleet = Fleet::default();
        let mut list = specs(&[80]);
        list.push(Spec::at("[::1]:8080".parse().unwrap()));
        fleet.update(&list);
        assert_eq!(fleet.index_of_text(b"[::1]:8080"), Some(1));
        assert_eq!(fleet.index_of_text(b"127.0.0.1:81"), None);
    }

    #[test]
    fn the_first_of_two_equal_addresses_counts() {
        let mut fleet = Fleet::default();
        let mut list = specs(&[80, 80]);
        list[1].weight = 9.0;
        fleet.update(&list);
        assert_eq!((fleet.len(), fleet.get(0).unwrap().weight), (1, 1.0));
    }
}
