//! The endpoints that a report shows: its work and size are bounded for any number of endpoints.

use engine::health::State;
use engine::{Balancer, Cluster, order};

/// The highest number of endpoints in a report, over all upstreams: some 2 MB of metrics.
pub const MAX_SHOWN: usize = 1000;

/// The endpoints of one upstream that are shown, and figures over all of its endpoints.
#[derive(Debug, Default)]
pub(super) struct Shown {
    /// The number of endpoints.
    pub count: usize,
    /// The number of eligible endpoints.
    pub eligible: usize,
    /// Requests in flight to any of them.
    pub in_flight: u64,
    /// By index: whether it is shown; empty if all are.
    chosen: Vec<bool>,
}

impl Shown {
    /// Selects the endpoints to show. Unhealthy ones come first, up to half of the room, then the others in the order
    /// of the endpoint set, so that most endpoints' series continue from one scrape to the next.
    #[inline(never)]
    pub fn of(upstream: &Cluster, room: usize) -> Shown {
        let mut shown = Shown { count: upstream.fleet().iter().count(), ..Shown::default() };
        let is_full = shown.count <= room;
        let (mut first, mut rest) = (Vec::new(), Vec::new());
        for (index, _) in upstream.fleet().iter() {
            let Some(endpoint) = upstream.endpoint(index) else { continue };
            shown.eligible += usize::from(endpoint.eligible);
            shown.in_flight += u64::from(endpoint.total_in_flight());
            let is_well = endpoint.eligible && endpoint.health.state() == State::Healthy;
            let list = if is_well || first.len() >= room.div_ceil(2) { &mut rest } else { &mut first };
            if !is_full && list.len() < room {
                list.push(index);
            }
        }
        for index in first.into_iter().chain(rest).take(room) {
            let at = index as usize;
            if shown.chosen.len() <= at {
                shown.chosen.resize(at + 1, false);
            }
            shown.chosen.get_mut(at).into_iter().for_each(|chosen| *chosen = true);
        }
        // With no room none is shown; an empty list would mean all.
        if !is_full && shown.chosen.is_empty() {
            shown.chosen.push(false);
        }
        shown
    }

    /// Whether the endpoint at this index is shown.
    pub fn has(&self, index: u32) -> bool {
        self.chosen.is_empty() || self.chosen.get(index as usize).copied().unwrap_or(false)
    }
}

/// The number of endpoints shown of each upstream: small ones in full, the rest of the room divided evenly.
#[inline(never)]
pub(super) fn rooms(engine: &Balancer) -> Vec<usize> {
    rooms_of(engine.upstreams().iter().map(|upstream| upstream.fleet().iter().count()).collect())
}

fn rooms_of(counts: Vec<usize>) -> Vec<usize> {
    let (mut left, mut waiting) = (MAX_SHOWN, counts.len());
    let mut rooms = vec![0; counts.len()];
    let mut by_size: Vec<(usize, usize)> = counts.into_iter().zip(0..).collect();
    order::sort(&mut by_size);
    for (count, at) in by_size {
        let room = count.min(left / waiting.max(1));
        rooms.get_mut(at).into_iter().for_each(|place| *place = room);
        (left, waiting) = (left - room, waiting - 1);
    }
    rooms
}

#[cfg(test)]
mod tests {
    #[cfg(all(target_family = "wasm", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    #[test]
    fn small_upstreams_are_shown_in_whole() {
        assert!(rooms_of(vec![]).is_empty());
        assert_eq!(rooms_of(vec![1000]), [1000]);
        assert_eq!(rooms_of(vec![10_000]), [1000]);
        assert_eq!(rooms_of(vec![10_000, 10, 300]), [690, 10, 300]);
        assert_eq!(rooms_of(vec![10_000, 10, 10_000]), [495, 10, 495]);
        assert_eq!(rooms_of(vec![10_000; 64]).iter().sum::<usize>(), MAX_SHOWN);
    }
}
