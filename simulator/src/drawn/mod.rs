//! Fleets drawn at random: each is one line of text that replays it, and is judged in paired runs.
//!
//! ```text
//! seed ─▶ Fleet ─▶ line ─▶ Fleet ─▶ Scenario ─▶ world::run, every balancer with the same seeds ─▶ Judged ─▶ report
//! ```

mod draw;
mod judge;
mod kinds;
mod line;
mod report;
mod statistics;

pub use draw::draw;
pub use judge::{Judged, METRICS, Metric, judge};
pub use kinds::{Fault, FaultKind, Fleet, Waits, WorkKind};
pub use report::{picture, text};

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Judges all `fleets` on all cores; `done` is called after each.
pub fn run(fleets: &[Fleet], done: impl Fn() + Sync) -> Vec<Judged> {
    let next = AtomicUsize::new(0);
    let judged = Mutex::new(vec![None; fleets.len()]);
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get()).min(fleets.len().max(1));
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let at = next.fetch_add(1, Ordering::Relaxed)
                    && let Some(fleet) = fleets.get(at)
                {
                    let one = judge(fleet);
                    if let Ok(mut judged) = judged.lock() {
                        judged[at] = Some(one);
                    }
                    done();
                }
            });
        }
    });
    let judged = judged.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    judged.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{contender, world};

    #[test]
    fn a_line_is_the_whole_fleet() {
        for seed in 0..2000 {
            let fleet = draw(seed);
            let line = fleet.to_string();
            let again: Fleet = line.parse().unwrap_or_else(|fault| panic!("{line}: {fault}"));
            assert_eq!(again, fleet, "{line}");
        }
        for broken in ["", "endpoints=3", "endpoints=3 nonsense=4", "endpoints=many"] {
            assert!(broken.parse::<Fleet>().is_err(), "{broken}");
        }
    }

    #[test]
    fn draws_what_was_asked_for_and_bounds_its_cost() {
        let fleets: Vec<Fleet> = (0..3000).map(draw).collect();
        for fleet in &fleets {
            let scenario = fleet.scenario();
            assert!((2..=300).contains(&fleet.endpoints), "{fleet}");
            assert!(scenario.rate * scenario.length < 26_000.0, "{fleet}");
            let ticks = fleet.proxies * (2 + fleet.workers * fleet.workers) * fleet.endpoints.min(50);
            assert!(ticks as f64 * fleet.length <= 80_000.0, "{fleet}");
            let load = scenario.rate * scenario.mean_work() / fleet.places();
            assert!((load / fleet.load - 1.0).abs() < 1e-6, "{load}: {fleet}");
            assert!(scenario.changes.iter().all(|c| c.endpoint < scenario.endpoints), "{fleet}");
            assert!(scenario.changes.is_sorted_by(|a, b| a.at <= b.at), "{fleet}");
        }
        let some = |what: &str, of: &dyn Fn(&Fleet) -> bool| {
            let share = fleets.iter().filter(|f| of(f)).count() as f64 / fleets.len() as f64;
            assert!((0.004..0.95).contains(&share), "{what}: {share}");
        };
        some("two endpoints", &|f| f.endpoints == 2);
        some("more than a hundred", &|f| f.endpoints > 100);
        some("one slot", &|f| f.slots == 1);
        some("64 slots and more", &|f| f.slots >= 64);
        some("a hundred proxies", &|f| f.proxies >= 100);
        some("more than 8 workers", &|f| f.workers > 8);
        some("rare pairs", &|f| f.rate / ((f.proxies * f.endpoints) as f64) < 0.1);
        some("overload", &|f| f.load > 1.0);
        some("errors", &|f| f.errors > 0.0);
        some("retries", &|f| f.retries > 0);
        some("told weights", &|f| f.told && f.bigger.0 > 0.0);
        some("signals", &|f| f.signal.is_some());
        some("faults", &|f| !f.faults.is_empty());
        for kind in ["never", "late", "streams"] {
            some(kind, &|f| f.long.is_some_and(|(waits, _)| waits.to_string() == kind));
        }
    }

    #[test]
    fn a_drawn_fleet_can_be_repeated() {
        let fleet = draw(7);
        let adaptive = contender::named("adaptive").unwrap();
        let once = world::run(&fleet.scenario(), &adaptive, 3);
        assert_eq!(once, world::run(&fleet.scenario(), &adaptive, 3));
        assert!(once.records.len() > 500);
    }
}
