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
/// Number of the process' requests between two ticks when requests are few: more frequent ticks would cost more than
/// the requests.
const REQUESTS_A_TICK: f64 = 4.0;
/// The longest pause because requests are few, milliseconds.
const FEW_REQUESTS_MS: f64 = 100.0;
/// The number of ticks without a request after which that pause no longer applies.
const FEW_TICKS: u32 = 4;
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
/// The pause while the whole process rests, milliseconds: a third of the time after which a lease or a report expires.
/// The first request ends it.
const REST_MS: u64 = 1000;
/// Ticks between two polls of the leader, at least, so that polls are not much delayed.
const TICKS_A_POLL: u64 = 10;

/// The pause until the next tick, milliseconds. `endpoints` counts those of all upstreams; `typical_s` is the longest
/// typical latency and `pace` the requests per second of all workers (infinite while responses are awaited); `idle` is
/// the number of ticks in a row without a request.
pub fn pause_ms(endpoints: usize, (typical_s, pace): (f64, f64), idle: u32) -> u64 {
    let shortest = if typical_s < BRIEF_S { BRIEF_MS } else { MIN_MS };
    let busy = (MIN_MS * endpoints as u64 / ENDPOINTS_AT_SHORTEST).clamp(shortest, MAX_MS);
    let some = pace > 0.0 && idle <= FEW_TICKS;
    let few = if some { (1000.0 * REQUESTS_A_TICK / pace).min(FEW_REQUESTS_MS) as u64 } else { 0 };
    let busy = busy.max(few);
    (busy << idle.min(8)).min(IDLE_MS.max(busy))
}

/// The pause while the whole process rests, milliseconds; `asks` is the worker's poll interval, milliseconds, or `None`
/// if it does not poll.
pub fn rest_ms(endpoints: usize, asks: Option<u64>) -> u64 {
    let most = asks.map_or(REST_MS, |interval| (interval / TICKS_A_POLL).min(REST_MS));
    most.max(pause_ms(endpoints, (f64::INFINITY, 0.0), u32::MAX))
}

#[cfg(test)]
mod tests {
    #[cfg(all(target_family = "wasm", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    #[test]
    fn grows_with_the_fleet_and_with_rest() {
        let sizes = [0, 10, 50, 200, 1000, 100_000];
        let (usual, brief) = ((0.02, 1000.0), (0.001, 1000.0));
        assert_eq!(sizes.map(|n| pause_ms(n, usual, 0)), [5, 5, 5, 20, 100, 500]);
        assert_eq!(sizes.map(|n| pause_ms(n, brief, 0)), [20, 20, 20, 20, 100, 500]);
        assert_eq!([0, 1, 2, 3, 4, u32::MAX].map(|idle| pause_ms(10, usual, idle)), [5, 10, 20, 40, 50, 50]);
        assert_eq!([0, 1, 2, u32::MAX].map(|idle| pause_ms(10, brief, idle)), [20, 40, 50, 50]);
        assert_eq!(pause_ms(1000, usual, 9), 100, "a large fleet is slow enough");
    }

    #[test]
    fn few_requests_have_few_ticks() {
        let paces = [10_000.0, 400.0, 100.0, 30.0, 1.0, 0.0];
        assert_eq!(paces.map(|pace| pause_ms(10, (0.02, pace), 0)), [5, 10, 40, 100, 100, 5]);
        assert_eq!([1, 4, 5].map(|idle| pause_ms(10, (0.02, 30.0), idle)), [100, 100, 50]);
        assert_eq!(pause_ms(10, (0.02, f64::NAN), 0), 5);
    }

    #[test]
    fn a_rest_is_as_long_as_leases_and_polls_allow() {
        assert_eq!(
            [None, Some(60_000), Some(5000), Some(200)].map(|asks| rest_ms(10, asks)),
            [1000, 1000, 500, 50]
        );
    }
}
