//! Events, and messages in transit.

use engine::time::Time;

use crate::balancer::Reply;
use crate::server::Work;

pub(super) enum Outbound {
    Request { endpoint: usize, work: Work },
    Probe { endpoint: usize, asker: usize },
}

pub(super) enum Inbound {
    Reply { request: u32, generation: u32, reply: Reply },
    Probe { endpoint: usize, asker: usize, in_flight: u32, latency: f64 },
}

pub(super) enum Event {
    Outbound(Outbound),
    Inbound(Inbound),
    Due { endpoint: usize, slot: usize, turn: u32 },
    Reply { request: u32, generation: u32, reply: Reply },
    Opened { request: u32, generation: u32, reply: Reply },
    Tick { worker: usize },
    GiveUp { request: u32, generation: u32 },
    Change { index: usize },
    Scale,
    Start { endpoint: usize },
    Scrape { endpoint: usize },
    Poll { proxy: usize },
}

pub(super) struct Timed {
    pub(super) at: Time,
    pub(super) order: u64,
    pub(super) event: Event,
}

impl PartialEq for Timed {
    fn eq(&self, other: &Timed) -> bool {
        (self.at, self.order) == (other.at, other.order)
    }
}

impl Eq for Timed {}

impl PartialOrd for Timed {
    fn partial_cmp(&self, other: &Timed) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Timed {
    fn cmp(&self, other: &Timed) -> std::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}
