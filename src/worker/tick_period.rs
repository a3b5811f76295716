//! How often a worker ticks: often while it carries traffic, because a tick is when workers see each other's requests;
//! seldom while it is idle, because thousands of sidecars mostly are.

/// The shortest pause between ticks, milliseconds: a quarter of a typical request, so that what another worker has in
/// flight is known while it matters. Simulated, queues of heavy requests: p95 106 ms at 20 ms, 92 ms at 5 ms, 91 ms
/// for an oracle.
const MIN_MS: u64 = 5;
/// Requests that typically take less, seconds, are over before another worker could know of them, and what is known of
/// them are averages: the shortest pause between ticks is then this many milliseconds. Simulated, requests of less than a
/// millisecond fare the same at 5 ms; in Envoy such a worker's ticks cost a tenth of all.
const BRIEF_S: f64 = 0.004;
const BRIEF_MS: u64 = 20;
/// What another worker tells may be old by so many requests of the process: where there are few, ticks that follow each of
/// them would cost more than the requests.
const REQUESTS_A_TICK: f64 = 4.0;
/// The longest pause on that account, milliseconds.
const FEW_REQUESTS_MS: f64 = 100.0;
/// After so many ticks without a request a worker is idle.
const FEW_TICKS: u32 = 4;
/// Endpoints that the shortest pause can afford; a tick's work grows with the fleet, and beyond these the pause does,
/// too.
const ENDPOINTS_AT_SHORTEST: u64 = 50;
/// The longest pause of a worker with traffic, milliseconds.
const MAX_MS: u64 = 500;
/// An idle worker beside busy ones ticks at this pause at least, milliseconds: its next requests find old news of the
/// others for no longer than this.
const IDLE_MS: u64 = 50;
/// The same in seconds: so old the conclusions of a worker with nothing on its way may be though nothing happens.
pub const IDLE_S: f64 = 0.05;
/// The same of a worker that awaits answers, seconds: much less than an endpoint may keep quiet.
pub const SILENT_S: f64 = 0.02;
/// The pause while the whole process rests, milliseconds: a third of what a lease lasts and a report counts. The first
/// request ends it.
const REST_MS: u64 = 1000;
/// A worker that asks sources for all ticks so many times between two questions, so that none comes much too late.
const TICKS_A_POLL: u64 = 10;

/// The pause until the next tick, milliseconds: at `endpoints` in all upstreams together, whose requests typically take
/// so many seconds and come at `pace` a second to all workers (infinite where answers are awaited), after `idle` ticks in a row without a request.
pub fn pause_ms(endpoints: usize, (typical_s, pace): (f64, f64), idle: u32) -> u64 {
    let shortest = if typical_s < BRIEF_S { BRIEF_MS } else { MIN_MS };
    let busy = (MIN_MS * endpoints as u64 / ENDPOINTS_AT_SHORTEST).clamp(shortest, MAX_MS);
    let some = pace > 0.0 && idle <= FEW_TICKS;
    let few = if some { (1000.0 * REQUESTS_A_TICK / pace).min(FEW_REQUESTS_MS) as u64 } else { 0 };
    let busy = busy.max(few);
    (busy << idle.min(8)).min(IDLE_MS.max(busy))
}

/// The pause while nothing is going on in the process: of a worker that `asks` sources at this interval, milliseconds,
/// or (`None`) asks none.
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
