//! From a seed to a fleet. Values that span several decades are drawn log-uniformly.

use engine::rng::{self, Rng};

use super::kinds::{Fault, FaultKind, Fleet, Waits, WorkKind};

/// Number of requests in a run: enough for a p99, and few enough for a run of a tenth of a second.
const REQUESTS: f64 = 6_000.0;
/// Range of the length of a run, seconds: longer than the policy's memory, but bounded.
const LENGTH_S: [f64; 2] = [10.0, 40.0];
/// Minimum length of a run in multiples of the mean work of a request.
const LIVES: f64 = 60.0;
/// Budget for ticks and reports of all workers: proxies · (2 + workers²) · seconds, where a tick's cost grows with the
/// number of endpoints.
const TICKS: f64 = 1_500.0;
/// Number of endpoints above which ticks become rarer in proportion to their cost.
const ENDPOINTS_A_TICK: f64 = 50.0;

struct Chance(Rng);

impl Chance {
    fn happens(&mut self, share: f64) -> bool {
        self.0.unit() < share
    }

    fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.0.unit()
    }

    /// Log-uniform between `low` and `high`.
    fn over(&mut self, low: f64, high: f64) -> f64 {
        low * (high / low).powf(self.0.unit())
    }

    fn whole(&mut self, low: f64, high: f64) -> usize {
        (self.over(low, high + 1.0) as usize).clamp(low as usize, high as usize)
    }

    fn or_none(&mut self, share: f64, of: impl FnOnce(&mut Chance) -> f64) -> f64 {
        if self.happens(share) { of(self) } else { 0.0 }
    }
}

/// Rounds to three digits, as in the line format.
fn rounded(value: f64) -> f64 {
    format!("{value:.2e}").parse().unwrap_or(value)
}

/// Draws the fleet that belongs to `seed`.
pub fn draw(seed: u64) -> Fleet {
    let mut chance = Chance(Rng::new(rng::mix(seed ^ 0x0064_7261_776e)));
    loop {
        let Some(fleet) = attempt(&mut chance) else { continue };
        let lives = fleet.length / fleet.mean_work();
        if lives >= LIVES && fleet.mean_work() >= 3e-4 {
            return fleet;
        }
    }
}

fn attempt(chance: &mut Chance) -> Option<Fleet> {
    let endpoints = chance.whole(2.0, 300.0);
    let slots = chance.whole(1.0, 256.0);
    let bigger = match chance.happens(0.3) {
        true => (rounded(chance.between(0.1, 0.6)), chance.whole(2.0, 8.0) as f64),
        false => (0.0, 1.0),
    };
    let work = match chance.0.below(10) {
        0..7 => WorkKind::LogNormal(rounded(chance.between(0.2, 2.0))),
        7 | 8 => WorkKind::Exponential,
        _ => WorkKind::Pareto(rounded(chance.between(1.3, 2.5))),
    };
    let heavy = match chance.happens(0.35) {
        true => (rounded(chance.over(0.01, 0.1)), rounded(chance.over(5.0, 100.0))),
        false => (0.0, 1.0),
    };
    let long = chance.happens(0.25).then(|| {
        let waits = [Waits::Never, Waits::Late, Waits::Streams][chance.0.below(3) as usize];
        (waits, rounded(chance.over(0.5, 20.0)))
    });
    let load = if chance.happens(0.06) { chance.between(1.0, 1.2) } else { chance.between(0.05, 0.95) };
    let proxies = if chance.happens(0.5) { 1 } else { chance.whole(2.0, 200.0) };
    let pairs = (proxies * endpoints) as f64;
    let rate = rounded((pairs * chance.over(0.01, 200.0)).clamp(40.0, 2500.0));
    let length = rounded((REQUESTS / rate).clamp(LENGTH_S[0], LENGTH_S[1]));
    let tick = (endpoints as f64).min(ENDPOINTS_A_TICK) / ENDPOINTS_A_TICK;
    let most = TICKS / (length * proxies as f64 * tick) - 2.0;
    let workers = chance.whole(1.0, most.max(1.0).sqrt().clamp(1.0, 16.0).floor());
    if most < 1.0 {
        // Too expensive: draw another one.
        return None;
    }
    let errors = chance.or_none(0.4, |c| rounded(c.over(0.0005, 0.05)));
    let retries = chance.0.below(3);
    let signal =
        chance.happens(0.15).then(|| (rounded(chance.over(1.0, 15.0)), rounded(chance.over(1.0, 5.0))));
    let faults = if chance.happens(0.5) { 1 + chance.0.below(2) } else { 0 };
    let scatter = chance.or_none(0.5, |c| rounded(c.over(0.02, 0.3)));
    Some(Fleet {
        salt: u64::from(chance.0.below(1_000_000)),
        endpoints,
        slots,
        told: bigger.0 > 0.0 && chance.happens(0.6),
        bigger,
        scatter,
        work,
        heavy,
        long,
        load: rounded(load),
        rate,
        length,
        proxies,
        workers,
        errors,
        retries,
        signal,
        faults: (0..faults).map(|_| fault(chance, endpoints)).collect(),
    })
}

fn fault(chance: &mut Chance, endpoints: usize) -> Fault {
    let kind = match chance.0.below(9) {
        0..3 => FaultKind::Slow(rounded(chance.over(1.5, 30.0))),
        3 => FaultKind::Hole,
        4 => FaultKind::Refuse,
        5 | 6 => FaultKind::Errors(rounded(chance.over(0.05, 1.0))),
        7 => FaultKind::Limits(rounded(chance.over(0.1, 1.0))),
        _ => FaultKind::Pause,
    };
    let from = if chance.happens(0.25) { 0.0 } else { rounded(chance.between(0.05, 0.7)) };
    let to = if chance.happens(0.3) { 1.0 } else { rounded(chance.between(from + 0.05, 1.0)) };
    let most = (0.3 * endpoints as f64).max(1.0);
    Fault { kind, endpoints: chance.whole(1.0, most.floor()), within: (from, to) }
}
