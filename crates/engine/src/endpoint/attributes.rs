//! Attributes that many endpoints share, stored once.

use hashbrown::HashMap;

use super::{AnnouncedHealth, Spec};

/// Zone, version, locality, priority and announced health: a cluster has few combinations of them.
#[derive(Clone, Debug)]
pub(super) struct Attributes {
    pub zone: Box<str>,
    pub version: Box<str>,
    pub locality: Box<str>,
    pub locality_weight: f64,
    pub priority: u32,
    pub condition: AnnouncedHealth,
}

/// Identity of an attribute set: zone, version, locality with the bits of its weight, priority and announced health.
type Key<'a> = (&'a str, &'a str, (&'a str, u64), u32, AnnouncedHealth);

/// Attribute sets in the order in which they are first met, each once.
#[derive(Debug, Default)]
pub(super) struct AttributeTable<'a> {
    kinds: Vec<Attributes>,
    numbers: HashMap<Key<'a>, u32>,
}

impl<'a> AttributeTable<'a> {
    /// Index of the attribute set of `spec`.
    pub fn number(&mut self, spec: &'a Spec) -> u32 {
        let Spec { ref zone, ref version, ref locality, locality_weight, priority, condition, .. } = *spec;
        let next = self.kinds.len() as u32;
        let part = (locality.as_str(), locality_weight.to_bits());
        *self.numbers.entry((zone, version, part, priority, condition)).or_insert_with(|| {
            let (zone, version, locality) =
                (zone.as_str().into(), version.as_str().into(), locality.as_str().into());
            self.kinds.push(Attributes { zone, version, locality, locality_weight, priority, condition });
            next
        })
    }

    /// All attribute sets, by index.
    pub fn done(mut self) -> Vec<Attributes> {
        self.kinds.shrink_to_fit();
        self.kinds
    }
}
