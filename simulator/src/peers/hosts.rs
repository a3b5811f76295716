//! The endpoints that are present, for peers without health.

use engine::rng::Rng;

use crate::scenario::Scenario;

/// The endpoints that are present.
#[derive(Clone, Debug)]
pub struct Hosts {
    list: Vec<usize>,
}

impl Hosts {
    /// The endpoints that are present at the start.
    pub fn new(scenario: &Scenario) -> Hosts {
        Hosts { list: (0..scenario.present).collect() }
    }

    /// Updates which endpoints are present.
    pub fn set(&mut self, present: &[bool]) {
        self.list = present.iter().enumerate().filter(|(_, p)| **p).map(|(i, _)| i).collect();
    }

    /// All endpoints that are present.
    pub fn all(&self) -> &[usize] {
        &self.list
    }

    /// Draws `count` distinct endpoints.
    pub fn draw(&mut self, count: usize, rng: &mut Rng) -> &[usize] {
        let count = count.min(self.list.len());
        for at in 0..count {
            let with = at + rng.below((self.list.len() - at) as u32) as usize;
            self.list.swap(at, with);
        }
        &self.list[..count]
    }
}
