//! One figure, such as the median or failures: whether steering makes it better or worse beyond doubt.
//!
//! Of the requests of a round, those with an event (a failure; a latency above a threshold that was set before) and those
//! without were each drawn into the arms by the same coin, if the arm makes no difference. A bet that the event's odds
//! are θ times higher among the steered multiplies its capital by the ratio of the two probabilities of the arms that were seen; under
//! the coin it wins nothing on average, whatever the numbers of events depend on.

use super::capital::{Capital, PERIOD_S};
use crate::time::Time;

/// The usual part of events counts like so many requests, so that a round of a single one has no part of 0 or 1.
const PRIOR: f64 = 20.0;

/// Requests of a round, divided by whether there was an event and by arm.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Round {
    /// With an event, in both arms.
    pub events: f64,
    /// Of these, held out.
    pub held_out_events: f64,
    /// Without, in both arms.
    pub others: f64,
    /// Of these, held out.
    pub held_out_others: f64,
}

/// The logarithm of what a bet on odds e^`log_ratio` times higher among the steered is multiplied by. `usual` is the part
/// that an event usually has.
fn gain(round: &Round, holdout: f64, usual: f64, log_ratio: f64) -> f64 {
    let all = round.events + round.others;
    // How many events there were says nothing of the arms, so that it may be used before they are looked at.
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

/// What is known of one figure.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Evidence {
    /// Bets on its being worse among the steered.
    pub worse: Capital,
    /// Bets on its being better.
    pub better: Capital,
    /// When it was last worse beyond doubt; [`Time::ZERO`] if never.
    pub worse_at: Time,
    /// The same of better.
    pub better_at: Time,
}

/// What a round has shown.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Shown {
    /// Nothing beyond doubt.
    Nothing,
    /// Worse, with the logarithm of the odds ratio.
    Worse(f64),
    /// Better.
    Better,
}

impl Evidence {
    /// Takes a round into account, `since_s` seconds after the test began; wrong with probability `alpha` at most, ever
    /// and on each side. What has been shown has to be shown anew after that.
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

/// What has shown something begins anew, so that it can be seen to last.
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
    fn the_coin_makes_every_bet_fair() {
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
