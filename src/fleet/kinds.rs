//! What many endpoints have in common.

use hashbrown::HashMap;

use super::{Condition, Spec};

/// Zone, version, priority and condition: a fleet has few combinations of them.
#[derive(Clone, Debug)]
pub(super) struct Kind {
    pub zone: Box<str>,
    pub version: Box<str>,
    pub priority: u32,
    pub condition: Condition,
}

/// Kinds as they are met, each once.
#[derive(Debug, Default)]
pub(super) struct Kinds<'a> {
    kinds: Vec<Kind>,
    numbers: HashMap<(&'a str, &'a str, u32, Condition), u32>,
}

impl<'a> Kinds<'a> {
    /// The number of the kind that `spec` is of.
    pub fn number(&mut self, spec: &'a Spec) -> u32 {
        let Spec { ref zone, ref version, priority, condition, .. } = *spec;
        let next = self.kinds.len() as u32;
        *self.numbers.entry((zone, version, priority, condition)).or_insert_with(|| {
            let (zone, version) = (zone.as_str().into(), version.as_str().into());
            self.kinds.push(Kind { zone, version, priority, condition });
            next
        })
    }

    /// All kinds by their numbers.
    pub fn done(mut self) -> Vec<Kind> {
        self.kinds.shrink_to_fit();
        self.kinds
    }
}
