//! Which endpoints are in the fleet, for peers that know no health.

use engine::rng::Rng;

use crate::scenario::Scenario;

/// The endpoints of the fleet.
#[derive(Clone, Debug)]
pub struct Hosts {
    list: Vec<usize>,
}

impl Hosts {
    /// Those there from the start.
    pub fn new(scenario: &Scenario) -> Hosts {
        Hosts { list: (0..scenario.present).collect() }
    }

    /// The fleet changed.
    pub fn set(&mut self, present: &[bool]) {
        self.list = present.iter().enumerate().filter(|(_, p)| **p).map(|(i, _)| i).collect();
    }

    /// All of them.
    pub fn all(&self) -> &[usize] {
        &self.list
    }

    /// Draws `count` distinct ones.
    pub fn draw(&mut self, count: usize, rng: &mut Rng) -> &[usize] {
        let count = count.min(self.list.len());
        for at in 0..count {
            let with = at + rng.below((self.list.len() - at) as u32) as usize;
            self.list.swap(at, with);
        }
        &self.list[..count]
    }
}
