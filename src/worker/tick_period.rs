//! The tick period: short under traffic, because ticks are when workers see each other's requests; long when idle,
//! because most of thousands of sidecars are idle.

/// The shortest pause between ticks, milliseconds: a quarter of a typical request, so that another worker's requests
/// are known while they are in flight. Simulated, queues of heavy requests: p95 106 ms at 20 ms, 92 ms at 5 ms, 91 ms
/// for an oracle.
const MIN_MS: u64 = 5;
/// The typical latency below which requests end before another worker could know of them, so that only averages are
/// shared, seconds: ticks are then at least [`BRIEF_MS`] apart. Simulated, requests of less than a millisecond fare the
/// same as at 5 ms; in Envoy such a worker's ticks cost a tenth of the total.
const BRIEF_S: f64 = 0.004;
/// The shortest pause between ticks for requests shorter than [`BRIEF_S`], milliseconds.
const BRIEF_MS: u64 = 20;
/// Number of the process' requests between two ticks that other requests in flight may meet: more frequent ticks would
/// cost more than the requests.
const REQUESTS_A_TICK: f64 = 4.0;
/// The longest pause because requests are few, milliseconds, while some are in flight.
const FEW_REQUESTS_MS: f64 = 100.0;
/// The number of ticks without a request after which that pause no longer applies.
const FEW_TICKS: u32 = 4;
/// The longest pause while no request of any worker is in flight, milliseconds: peers' reports then carry latencies and
/// failures alone, both of which take several requests to change.
const QUIET_MS: u64 = 250;
/// The number of endpoints up to which the shortest pause is affordable. The work of a tick grows with the endpoints,
/// and beyond this number the pause does, too.
const ENDPOINTS_AT_SHORTEST: u64 = 50;
/// The longest pause of a worker with traffic, milliseconds.
const MAX_MS: u64 = 500;
/// The longest pause of an idle worker beside busy ones, milliseconds: the age of the peers' reports that its next
/// requests are decided by.
const IDLE_MS: u64 = 50;
/// [`IDLE_MS`] in seconds: the interval at which an idle worker refreshes its conclusions.
pub const IDLE_S: f64 = 0.05;
/// The interval at which a worker that waits for responses refreshes its conclusions, seconds: much less than the time
/// after which an endpoint counts as stalled.
pub const SILENT_S: f64 = 0.02;
/// The pause of a worker at rest, milliseconds: two thirds of the time after which its report expires. Its first request
/// ends it.
const REST_MS: u64 = 2000;
/// The pause of the leader at rest, milliseconds: a third of the time after which its lease expires.
const LEADER_REST_MS: u64 = 1000;
/// Ticks between two polls of the leader, at least, so that polls are not much delayed.
const TICKS_A_POLL: u64 = 10;

/// The requests of all workers.
#[derive(Clone, Copy, Debug)]
pub struct Requests {
    /// The longest typical latency, seconds; infinite before the first request.
    pub typical_s: f64,
    /// Requests per second; infinite while this worker awaits responses.
    pub pace: f64,
    /// How many were in flight at the latest tick.
    pub in_flight: f64,
}

impl Requests {
    /// The pause because they are few, milliseconds; 0 if they are not.
    fn pause_ms(&self, most_ms: f64) -> u64 {
        if self.pace.is_nan() || self.pace <= 0.0 {
            return 0;
        }
        // The mean number in flight (Little's law) is the probability that a request meets another one.
        let meets = self.in_flight.max(self.pace * self.typical_s).min(1.0);
        (1000.0 * REQUESTS_A_TICK / (self.pace * meets)).min(most_ms) as u64
    }
}

fn affordable_ms(endpoints: usize) -> u64 {
    MIN_MS * endpoints as u64 / ENDPOINTS_AT_SHORTEST
}

/// The longest pause of a worker with this poll interval, milliseconds, that delays no poll by much.
fn between_polls_ms(asks: Option<u64>) -> u64 {
    asks.map_or(u64::MAX, |interval| (interval / TICKS_A_POLL).max(IDLE_MS))
}

/// The pause until the next tick, milliseconds. `endpoints` counts those of all upstreams; `idle` is the number of ticks
/// in a row without a request; `asks` is as for [`rest_ms`].
pub fn pause_ms(endpoints: usize, requests: Requests, idle: u32, asks: Option<u64>) -> u64 {
    let shortest = if requests.typical_s < BRIEF_S { BRIEF_MS } else { MIN_MS };
    let busy = affordable_ms(endpoints).clamp(shortest, MAX_MS);
    let quiet = requests.in_flight <= 0.0 && requests.pace.is_finite();
    let most = if quiet { QUIET_MS.min(between_polls_ms(asks)) } else { IDLE_MS };
    let few = match quiet {
        true => requests.pause_ms(most as f64),
        false if idle <= FEW_TICKS => requests.pause_ms(FEW_REQUESTS_MS),
        false => 0,
    };
    let busy = busy.max(few);
    (busy << idle.min(8)).min(most.max(busy))
}

/// The pause of a worker at rest, milliseconds; `asks` is the poll interval of the leader, milliseconds, or [`u64::MAX`]
/// if it does not poll. `None` for other workers.
pub fn rest_ms(endpoints: usize, asks: Option<u64>) -> u64 {
    let most = if asks.is_some() { LEADER_REST_MS } else { REST_MS };
    most.min(between_polls_ms(asks)).max(affordable_ms(endpoints).min(MAX_MS))
}

#[cfg(test)]
mod tests {
    #[cfg(all(target_family = "wasm", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    fn some(typical_s: f64, pace: f64, in_flight: f64) -> Requests {
        Requests { typical_s, pace, in_flight }
    }

    #[test]
    fn grows_with_the_fleet_and_with_rest() {
        let sizes = [0, 10, 50, 200, 1000, 100_000];
        let (usual, brief) = (some(0.02, 1000.0, 20.0), some(0.001, 1000.0, 1.0));
        assert_eq!(sizes.map(|n| pause_ms(n, usual, 0, None)), [5, 5, 5, 20, 100, 500]);
        assert_eq!(sizes.map(|n| pause_ms(n, brief, 0, None)), [20, 20, 20, 20, 100, 500]);
        assert_eq!(
            [0, 1, 2, 3, 4, u32::MAX].map(|idle| pause_ms(10, usual, idle, None)),
            [5, 10, 20, 40, 50, 50]
        );
        assert_eq!([0, 1, 2, u32::MAX].map(|idle| pause_ms(10, brief, idle, None)), [20, 40, 50, 50]);
        assert_eq!(pause_ms(1000, usual, 9, None), 100, "a large fleet is slow enough");
        let none = some(f64::INFINITY, 0.0, 0.0);
        assert_eq!([0, 3, 5, 9, u32::MAX].map(|idle| pause_ms(10, none, idle, None)), [5, 40, 160, 250, 250]);
    }

    #[test]
    fn few_requests_have_few_ticks() {
        let paces = [10_000.0, 400.0, 100.0, 30.0, 1.0, 0.0];
        assert_eq!(paces.map(|pace| pause_ms(10, some(0.02, pace, 1.0), 0, None)), [5, 10, 40, 100, 100, 5]);
        assert_eq!([1, 4, 5].map(|idle| pause_ms(10, some(0.02, 30.0, 1.0), idle, None)), [100, 100, 50]);
        assert_eq!(pause_ms(10, some(0.02, f64::NAN, 1.0), 0, None), 5);
    }

    #[test]
    fn requests_that_meet_no_other_have_fewer_still() {
        let pause = |typical_s, pace, in_flight| pause_ms(10, some(typical_s, pace, in_flight), 0, None);
        assert_eq!(
            [1000.0, 400.0, 200.0, 100.0, 30.0].map(|pace_s| pause(0.002, pace_s, 0.0)),
            [20, 20, 50, 200, 250]
        );
        assert_eq!(
            [400.0, 30.0, 10.0].map(|pace_s| pause(0.1, pace_s, 0.0)),
            [10, 133, 250],
            "some meet others"
        );
        assert_eq!(pause(0.002, 30.0, 1.0), 100, "a peer's is in flight");
        assert_eq!(pause(0.02, f64::INFINITY, 0.0), 5, "an own one is in flight");
        assert_eq!(pause_ms(10, some(0.002, 30.0, 0.0), u32::MAX, None), 250);
    }

    #[test]
    fn a_leader_ticks_often_enough_for_its_polls() {
        let quiet = some(0.002, 30.0, 0.0);
        let asks = [Some(u64::MAX), Some(5000), Some(1000), Some(200), Some(0)];
        assert_eq!(asks.map(|asks| pause_ms(10, quiet, 0, asks)), [250, 250, 100, 50, 50]);
        assert_eq!(pause_ms(10_000, quiet, 0, Some(200)), 500, "a large fleet costs too much");
    }

    #[test]
    fn a_rest_is_as_long_as_leases_and_polls_allow() {
        assert_eq!(
            [None, Some(u64::MAX), Some(60_000), Some(5000), Some(200)].map(|asks| rest_ms(10, asks)),
            [2000, 1000, 1000, 500, 50]
        );
    }
}
