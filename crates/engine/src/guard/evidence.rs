//! Sequential test of one figure, such as the median or failures: whether steering certainly makes it better or worse.
//!
//! Take the requests of a round with an event (a failure, or a latency above a threshold set beforehand) and those
//! without. If the arm makes no difference, each of the two sets was drawn into the arms by the same coin. A bet that
//! the event's odds are θ times higher among the steered multiplies its capital by the likelihood ratio of the observed
//! arms; under the coin it gains nothing on average, whatever the numbers of events depend on.

use super::capital::{Capital, PERIOD_S};
use crate::time::Time;

/// Weight of the usual fraction of events, requests, so that a round with a single one has no fraction of 0 or 1.
const PRIOR: f64 = 20.0;

/// Requests of a round, by event and arm.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Round {
    /// Number with an event, in both arms.
    pub events: f64,
    /// Number with an event that were held out.
    pub held_out_events: f64,
    /// Number without an event, in both arms.
    pub others: f64,
    /// Number without an event that were held out.
    pub held_out_others: f64,
}

/// Log of the factor by which a bet on odds e^`log_ratio` times higher among the steered multiplies its capital.
/// `usual` is the usual fraction of events.
fn gain(round: &Round, holdout: f64, usual: f64, log_ratio: f64) -> f64 {
    let all = round.events + round.others;
    // The number of events says nothing about the arms, so it may be used before the arms are looked at.
    let part = (round.events + PRIOR * usual) / (all + PRIOR);
    let logit = (part / (1.0 - part)).ln();
    let chance = |logit: f64| 1.0 / (1.0 + (-logit).exp());
    let steered = chance(logit + holdout * log_ratio);
    let held_out = chance(logit - (1.0 - holdout) * log_ratio);
    let of = |steered: f64, held_out: f64, count: f64, ours: f64| {
        let expected = holdout * held_out / (holdout * held_out + (1.0 - holdout) * steered);
        let side = |count: f64, expected: f64, coin: f64| {
            if count > 0.0 { count * (expected / coin).ln() } else { 0.0 }
        };
        side(ours, expected, holdout) + side(count - ours, 1.0 - expected, 1.0 - holdout)
    };
    of(steered, held_out, round.events, round.held_out_events)
        + of(1.0 - steered, 1.0 - held_out, round.others, round.held_out_others)
}

/// State of the test of one figure.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Evidence {
    /// Bets that it is worse among the steered.
    pub worse: Capital,
    /// Bets that it is better among the steered.
    pub better: Capital,
    /// When it was last found to be worse; [`Time::ZERO`] if never.
    pub worse_at: Time,
    /// When it was last found to be better; [`Time::ZERO`] if never.
    pub better_at: Time,
}

/// Finding of a round.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Shown {
    /// Nothing certain.
    Nothing,
    /// Certainly worse, with the log odds ratio.
    Worse(f64),
    /// Certainly better.
    Better,
}

impl Evidence {
    /// Adds a round, `since_s` seconds after the test began. On each side it is ever wrong with a probability of at
    /// most `alpha`. After a finding, that side starts anew.
    pub fn take(&mut self, round: &Round, (holdout, usual, alpha): (f64, f64, f64), since_s: f64) -> Shown {
        for capital in [&mut self.worse, &mut self.better] {
            capital.pay(since_s.min(PERIOD_S));
        }
        if round.events + round.others <= 0.0 {
            return Shown::Nothing;
        }
        self.worse.bet(|ratio| gain(round, holdout, usual, ratio.ln()));
        self.better.bet(|ratio| gain(round, holdout, usual, -ratio.ln()));
        let enough = -alpha.ln();
        if self.worse.log() >= enough {
            let ratio = self.worse.log_ratio();
            self.worse = fresh(since_s);
            return Shown::Worse(ratio);
        }
        if self.better.log() >= enough {
            self.better = fresh(since_s);
            return Shown::Better;
        }
        Shown::Nothing
    }
}

/// New capital, so that it can be seen whether a finding lasts.
fn fresh(since_s: f64) -> Capital {
    let mut capital = Capital::default();
    capital.pay(since_s.min(PERIOD_S));
    capital
}

#[cfg(test)]
mod tests {
    #[cfg(all(target_family = "wasm", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    /// ln of n over k.
    fn choose(n: u32, k: u32) -> f64 {
        (1..=k).map(|i| (f64::from(n - k + i) / f64::from(i)).ln()).sum()
    }

    /// The expected factor over all arms that the coin can draw is 1: no bet has an advantage over the coin, whatever
    /// the numbers of events are.
    #[test]
    fn randomized_threshold_keeps_the_bet_fair() {
        for holdout in [0.001, 0.01, 0.3, 0.5] {
            for (events, others) in [(0u32, 1u32), (1, 0), (3, 5), (12, 1), (20, 20)] {
                for log_ratio in [-3.0f64, -0.05, 0.05, 0.7, 7.0] {
                    let (coin, tail) = (f64::ln(holdout), f64::ln(1.0 - holdout));
                    let mut sum = 0.0;
                    for k in 0..=events {
                        for l in 0..=others {
                            let round = Round {
                                events: events.into(),
                                held_out_events: k.into(),
                                others: others.into(),
                                held_out_others: l.into(),
                            };
                            let held = f64::from(k + l);
                            let chance = choose(events, k)
                                + choose(others, l)
                                + held * coin
                                + (f64::from(events + others) - held) * tail;
                            sum += (chance + gain(&round, holdout, 0.1, log_ratio)).exp();
                        }
                    }
                    assert!((sum - 1.0).abs() < 1e-9, "{holdout} {events} {others} {log_ratio}: {sum}");
                }
            }
        }
    }
}
