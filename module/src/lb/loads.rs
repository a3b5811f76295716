//! The part of the requests that each priority gets, as Envoy's own policies divide them.

use engine::rng::Rng;

use crate::abi::{Hosts, LbHandle};

/// Envoy's limit of priorities.
const MAX_PRIORITIES: usize = 128;
/// Envoy's default over-provisioning factor, percent: a priority, or a locality, gets all of its part down to 72 % healthy
/// hosts.
pub const OVERPROVISIONED: usize = 140;

/// Percentage of the requests by priority; 100 in all if any host is healthy.
pub struct Loads {
    loads: [u8; MAX_PRIORITIES],
}

impl Loads {
    /// The present ones.
    pub fn of(lb: LbHandle) -> Loads {
        let count = lb.priorities();
        Loads::by((0..count).map(|p| (lb.count(p, Hosts::Healthy), lb.count(p, Hosts::All))))
    }

    /// For priorities with so many healthy hosts of so many.
    pub fn by(hosts: impl Iterator<Item = (usize, usize)>) -> Loads {
        let mut loads = [0; MAX_PRIORITIES];
        let mut sum = 0;
        for ((healthy, all), load) in hosts.zip(&mut loads) {
            // At least 1 for any healthy host, so that it is found where there is no other.
            let percent = (healthy.saturating_mul(OVERPROVISIONED) / all.max(1)).clamp(0, 100);
            let percent = percent.max(usize::from(healthy > 0)) as u8;
            *load = percent;
            sum += u32::from(percent);
        }
        let (mut left, total) = (100, sum.clamp(1, 100));
        for load in &mut loads {
            let part = (u32::from(*load) * 100 / total).min(left);
            left -= part;
            *load = part as u8;
        }
        // What rounding leaves goes to the first that has anything.
        if let Some(first) = loads.iter_mut().find(|load| **load > 0) {
            *first = first.saturating_add(left as u8);
        }
        Loads { loads }
    }

    /// Percentage of this priority.
    pub fn of_priority(&self, priority: u32) -> u8 {
        self.loads.get(priority as usize).copied().unwrap_or(0)
    }

    /// Draws a priority by its load; `None` if no host is healthy.
    pub fn draw(&self, rng: &mut Rng) -> Option<u32> {
        let mut left = rng.below(100);
        for (priority, load) in (0u32..).zip(&self.loads) {
            match left.checked_sub(u32::from(*load)) {
                Some(rest) => left = rest,
                None => return Some(priority),
            }
        }
        None
    }
}
