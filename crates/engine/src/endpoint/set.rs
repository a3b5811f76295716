//! The endpoint set: identity, weight and attributes, by an index that remains valid while others come and go.

use core::fmt::Write;
use core::net::SocketAddr;

use hashbrown::hash_map::Entry;
use hashbrown::{HashMap, HashTable};

use crate::rng;

use crate::endpoint::AnnouncedHealth;

use crate::endpoint::attributes::{AttributeTable, Attributes};

use crate::endpoint::string_arena::StringArena;

/// One endpoint as described by a discovery source.
#[derive(Clone, Debug, PartialEq)]
pub struct Spec {
    /// The address it listens on.
    pub address: SocketAddr,
    /// Relative capacity, > 0.
    pub weight: f64,
    /// Zone, empty if unknown.
    pub zone: String,
    /// Priority; 0 is used first.
    pub priority: u32,
    /// Version, empty if unknown.
    pub version: String,
    /// Locality that requests are divided by; empty if they are not.
    pub locality: String,
    /// Weight of the locality among those of its priority.
    pub locality_weight: f64,
    /// Announced health.
    pub condition: AnnouncedHealth,
}

impl Spec {
    /// An endpoint of which only the address is known.
    pub fn at(address: SocketAddr) -> Spec {
        Spec {
            address,
            weight: 1.0,
            zone: String::new(),
            priority: 0,
            version: String::new(),
            locality: String::new(),
            locality_weight: 0.0,
            condition: AnnouncedHealth::Serving,
        }
    }
}

impl From<&crate::settings::StaticEndpoint> for Spec {
    fn from(endpoint: &crate::settings::StaticEndpoint) -> Spec {
        Spec {
            address: endpoint.address,
            weight: endpoint.weight,
            zone: endpoint.zone.clone(),
            priority: endpoint.priority,
            version: endpoint.version.clone(),
            ..Spec::at(endpoint.address)
        }
    }
}

/// Reference to an endpoint, valid until its slot passes to another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndpointRef {
    /// Index in [`EndpointSet`] and in all columns beside it.
    pub index: u32,
    /// Generation of the slot, which distinguishes its successive endpoints.
    pub generation: u32,
}

/// One endpoint, with its printed address and hash, so that no request has to format it.
#[derive(Clone, Copy, Debug)]
pub struct Endpoint<'a> {
    /// `ip:port` as Envoy prints it.
    pub text: &'a str,
    /// Stable identity between workers: [`rng::hash`] of `text`.
    pub hash: u64,
    /// Relative capacity, > 0.
    pub weight: f32,
    kind: &'a Attributes,
}

impl<'a> Endpoint<'a> {
    /// The address it listens on.
    pub fn address(&self) -> SocketAddr {
        // The text was printed from an address, so parsing succeeds.
        self.text.parse().unwrap_or_else(|_| SocketAddr::from(([0; 4], 0)))
    }

    /// Zone, empty if unknown.
    pub fn zone(&self) -> &'a str {
        &self.kind.zone
    }

    /// Version, empty if unknown.
    pub fn version(&self) -> &'a str {
        &self.kind.version
    }

    /// Locality that requests are divided by; empty if they are not.
    pub fn locality(&self) -> &'a str {
        &self.kind.locality
    }

    /// Weight of the locality among those of its priority.
    pub fn locality_weight(&self) -> f64 {
        self.kind.locality_weight
    }

    /// Priority; 0 is used first.
    pub fn priority(&self) -> u32 {
        self.kind.priority
    }

    /// Announced health.
    pub fn condition(&self) -> AnnouncedHealth {
        self.kind.condition
    }
}

/// One slot of the set; shared attributes are stored once.
#[derive(Clone, Copy, Debug)]
struct Slot {
    /// Offset in the string arena.
    text: u32,
    /// Index of the attribute set, or [`Slot::VACANT`].
    kind: u32,
    weight: f32,
    generation: u32,
}

impl Slot {
    const VACANT: u32 = u32::MAX;

    fn is_vacant(&self) -> bool {
        self.kind == Slot::VACANT
    }
}

/// Result of an [`update`](EndpointSet::update).
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Indices of new endpoints.
    pub joined: Vec<u32>,
    /// Indices of slots that are now vacant.
    pub left: Vec<u32>,
}

/// The endpoints of one cluster.
#[derive(Clone, Debug, Default)]
pub struct EndpointSet {
    places: Vec<Slot>,
    /// Identity by index; in a vacant slot, that of its last endpoint.
    identities: Vec<u64>,
    texts: StringArena,
    kinds: Vec<Attributes>,
    vacant: Vec<u32>,
    /// Indices by identity.
    by_hash: HashTable<u32>,
}

impl EndpointSet {
    /// Replaces the endpoints by `specs`. Those that remain keep their index; the first of two equal addresses counts.
    #[inline(never)]
    pub fn update(&mut self, specs: &[Spec]) -> Changes {
        let mut changes = Changes::default();
        let (mut texts, mut kinds) = (StringArena::default(), AttributeTable::default());
        let mut wanted: HashMap<u64, Slot> = HashMap::with_capacity(specs.len());
        let mut order = Vec::with_capacity(specs.len());
        let mut text = String::new();
        for spec in specs {
            text.clear();
            // Writing to a string cannot fail.
            _ = write!(text, "{}", spec.address);
            let hash = rng::hash(text.as_bytes());
            if let Entry::Vacant(entry) = wanted.entry(hash) {
                let (text, kind) = (texts.add(&text), kinds.number(spec));
                entry.insert(Slot { text, kind, weight: spec.weight as f32, generation: 0 });
                order.push(hash);
            }
        }
        for (index, (place, hash)) in (0u32..).zip(self.places.iter_mut().zip(&self.identities)) {
            if place.is_vacant() {
                continue;
            }
            if let Some(slot) = wanted.get(hash) {
                *place = Slot { generation: place.generation, ..*slot };
            } else {
                place.kind = Slot::VACANT;
                place.generation = place.generation.wrapping_add(1);
                if let Ok(entry) = self.by_hash.find_entry(*hash, |at| *at == index) {
                    entry.remove();
                }
                changes.left.push(index);
            }
        }
        for hash in order {
            if self.index_of_hash(hash).is_some() {
                continue;
            }
            let Some(place) = wanted.get(&hash) else { continue };
            let index = self.settle(*place, hash);
            let identities = &self.identities;
            let hash_of = |at: &u32| identities.get(*at as usize).copied().unwrap_or_default();
            self.by_hash.insert_unique(hash, index, hash_of);
            changes.joined.push(index);
        }
        self.vacant.extend(&changes.left);
        self.texts = texts.done();
        self.kinds = kinds.done();
        self.places.shrink_to_fit();
        self.identities.shrink_to_fit();
        changes
    }

    /// Puts an endpoint into a slot that was vacant before this update, or into a new one.
    #[inline(never)]
    fn settle(&mut self, endpoint: Slot, hash: u64) -> u32 {
        if let Some(index) = self.vacant.pop() {
            if let Some(place) = self.places.get_mut(index as usize) {
                *place = Slot { generation: place.generation, ..endpoint };
            }
            if let Some(identity) = self.identities.get_mut(index as usize) {
                *identity = hash;
            }
            return index;
        }
        self.places.push(endpoint);
        self.identities.push(hash);
        (self.places.len() - 1) as u32
    }

    /// Number of slots including vacant ones, the bound of every index.
    pub fn places(&self) -> usize {
        self.places.len()
    }

    /// Number of endpoints.
    pub fn len(&self) -> usize {
        self.by_hash.len()
    }

    /// Whether there is no endpoint.
    pub fn is_empty(&self) -> bool {
        self.by_hash.is_empty()
    }

    /// The endpoint at `index`.
    pub fn get(&self, index: u32) -> Option<Endpoint<'_>> {
        let place = self.places.get(index as usize)?;
        Some(Endpoint {
            text: self.texts.get(place.text),
            hash: *self.identities.get(index as usize)?,
            weight: place.weight,
            kind: self.kinds.get(place.kind as usize)?,
        })
    }

    /// Address of the endpoint at `index` as Envoy prints it.
    pub fn text(&self, index: u32) -> Option<&[u8]> {
        let place = self.places.get(index as usize).filter(|place| !place.is_vacant())?;
        Some(self.texts.bytes(place.text))
    }

    /// [Identity](Endpoint::hash) of the endpoint in each slot; of its last one, if the slot is vacant.
    pub fn identities(&self) -> &[u64] {
        &self.identities
    }

    /// A reference to the endpoint at `index`, which becomes invalid when the slot passes to another one.
    pub fn reference(&self, index: u32) -> Option<EndpointRef> {
        let place = self.places.get(index as usize).filter(|place| !place.is_vacant())?;
        Some(EndpointRef { index, generation: place.generation })
    }

    /// Whether the slot still holds the endpoint that `reference` was made for.
    pub fn is_current(&self, reference: EndpointRef) -> bool {
        self.reference(reference.index) == Some(reference)
    }

    /// Index of the endpoint with this identity.
    pub fn index_of_hash(&self, hash: u64) -> Option<u32> {
        self.by_hash.find(hash, |at| self.identities.get(*at as usize) == Some(&hash)).copied()
    }

    /// Index of the endpoint whose address Envoy prints as `text`.
    pub fn index_of_text(&self, text: &[u8]) -> Option<u32> {
        let index = self.index_of_hash(rng::hash(text))?;
        self.text(index).filter(|known| *known == text).map(|_| index)
    }

    /// Indices and identities of all endpoints.
    pub fn present(&self) -> impl Iterator<Item = (u32, u64)> {
        let taken = (0u32..).zip(&self.places).zip(&self.identities).filter(|((_, p), _)| !p.is_vacant());
        taken.map(|((index, _), identity)| (index, *identity))
    }

    /// All endpoints with their indices.
    pub fn iter(&self) -> impl Iterator<Item = (u32, Endpoint<'_>)> {
        (0..self.places.len() as u32).filter_map(|index| Some((index, self.get(index)?)))
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
    fn kept_endpoints_keep_their_index_and_returning_ones_get_a_new_generation() {
        let mut fleet = EndpointSet::default();
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
        let mut fleet = EndpointSet::default();
        for round in 0..500u16 {
            fleet.update(&specs(&[round * 3 + 1, round * 3 + 2, round * 3 + 3]));
        }
        assert!(fleet.places() <= 6, "{}", fleet.places());
        assert_eq!((fleet.texts.capacity(), fleet.kinds.len()), (3 * "\u{e}127.0.0.1:1500".len(), 1));
    }

    #[test]
    fn finds_by_the_text_that_envoy_prints() {
        let mut fleet = EndpointSet::default();
        let mut list = specs(&[80]);
        list.push(Spec::at("[::1]:8080".parse().unwrap()));
        fleet.update(&list);
        assert_eq!(fleet.index_of_text(b"[::1]:8080"), Some(1));
        assert_eq!(fleet.index_of_text(b"127.0.0.1:81"), None);
    }

    #[test]
    fn the_first_of_two_equal_addresses_counts() {
        let mut fleet = EndpointSet::default();
        let mut list = specs(&[80, 80]);
        list[1].weight = 9.0;
        fleet.update(&list);
        assert_eq!((fleet.len(), fleet.get(0).unwrap().weight), (1, 1.0));
    }
}
