//! Capital of bets on several sizes of a difference.
//!
//! Each expert bets on its own odds ratio; the capital is the sum over all of them (a mixture: M. Lindon, A. Malek,
//! "Anytime-valid inference for multinomial count data", NeurIPS 2022). Most of it is bet at once. The rest is kept in
//! cash and paid to the experts over time (sleeping experts, after M. Herbster, M. Warmuth, "Tracking the best expert",
//! Machine Learning 1998), so that a difference that begins after weeks meets experts that have not lost everything.

/// Odds ratios that are bet on. The least one gains only from about its root on, 1.025, so a difference below that is
/// not found, however certain.
pub const RATIOS: [f64; EXPERTS] = [1.05, 1.1, 1.2, 1.35, 1.6, 2.0, 3.0, 5.0, 10.0, 1000.0];
/// Number of experts.
pub const EXPERTS: usize = 10;
/// Parts of the capital by expert: the most for differences that have to be found soon.
const PARTS: [f64; EXPERTS] = [0.06, 0.06, 0.06, 0.07, 0.09, 0.12, 0.14, 0.15, 0.12, 0.13];
/// Part of the capital that is kept in cash at first.
const CASH: f64 = 0.15;
/// Time over which the cash is paid out, seconds; then the test starts anew.
pub const PERIOD_S: f64 = 14.0 * 86_400.0;
/// Time constant of the early half of the payments, seconds: half of the cash is paid evenly, half in proportion to
/// 1/(t + this).
const EARLY_S: f64 = 60.0;
/// Lower bound of a log capital: as good as nothing, but finite.
const NOTHING: f64 = -1e4;

/// Log capital of each expert, and until when they have been paid.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Capital {
    /// Log capital by expert.
    pub logs: [f64; EXPERTS],
    /// Time until which they have been paid, seconds since the beginning.
    pub paid_s: f64,
}

impl Default for Capital {
    fn default() -> Capital {
        Capital { logs: PARTS.map(|part| (part * (1.0 - CASH)).ln()), paid_s: 0.0 }
    }
}

/// Part of the capital paid out in the first `s` seconds.
fn paid_after(s: f64) -> f64 {
    let s = s.clamp(0.0, PERIOD_S);
    let early = (s / EARLY_S).ln_1p() / (PERIOD_S / EARLY_S).ln_1p();
    CASH * 0.5 * (s / PERIOD_S + early)
}

/// ln(eᵃ + eᵇ).
fn sum_of_logs(a: f64, b: f64) -> f64 {
    let (high, low) = if a > b { (a, b) } else { (b, a) };
    high + (low - high).exp().ln_1p()
}

impl Capital {
    /// Pays the experts up to `s` seconds since the beginning.
    pub fn pay(&mut self, s: f64) {
        let pay = paid_after(s) - paid_after(self.paid_s);
        if pay > 0.0 {
            for (log, part) in self.logs.iter_mut().zip(PARTS) {
                *log = sum_of_logs(*log, (pay * part).ln());
            }
        }
        self.paid_s = self.paid_s.max(s);
    }

    /// Plays a round: multiplies each expert's capital by e^`gains` of its odds ratio.
    pub fn bet(&mut self, gains: impl Fn(f64) -> f64) {
        for (log, ratio) in self.logs.iter_mut().zip(RATIOS) {
            let gain = gains(ratio);
            if gain.is_finite() {
                *log = (*log + gain).clamp(NOTHING, -NOTHING);
            }
        }
    }

    /// Log of the total capital, cash included.
    pub fn log(&self) -> f64 {
        let cash = (CASH - paid_after(self.paid_s)).max(f64::MIN_POSITIVE).ln();
        self.logs.iter().fold(cash, |sum, log| sum_of_logs(sum, *log))
    }

    /// Log of the odds ratio, averaged over the experts by their capital.
    pub fn log_ratio(&self) -> f64 {
        let most = self.logs.iter().copied().fold(NOTHING, f64::max);
        let (mut sum, mut all) = (0.0, 0.0);
        for (log, ratio) in self.logs.iter().zip(RATIOS) {
            let weight = (log - most).exp();
            sum += weight * ratio.ln();
            all += weight;
        }
        sum / all
    }

    /// Validates what another worker wrote.
    pub fn checked(self) -> Option<Capital> {
        let sound = |log: &f64| (NOTHING..=-NOTHING).contains(log);
        let all = self.logs.iter().all(sound) && (0.0..=2.0 * PERIOD_S).contains(&self.paid_s);
        all.then_some(self)
    }
}

#[cfg(test)]
mod tests {
    #[cfg(all(target_family = "wasm", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    #[test]
    fn nothing_is_won_by_waiting() {
        let mut capital = Capital::default();
        assert!(capital.log().abs() < 1e-12, "the parts are one");
        for s in [1.0, 2.0, 1e3, 1e5, PERIOD_S, 2.0 * PERIOD_S] {
            capital.pay(s);
            assert!(capital.log().abs() < 1e-9, "{s}");
        }
    }

    #[test]
    fn no_loss_is_so_great_that_it_is_no_number() {
        let mut capital = Capital::default();
        (0..1000).for_each(|_| capital.bet(|_| -1e9));
        capital.bet(|_| f64::NAN);
        capital.bet(|_| f64::NEG_INFINITY);
        assert!(capital.logs.iter().all(|log| log.is_finite()) && capital.log().is_finite());
        assert!(capital.log_ratio().is_finite());
        assert_eq!(capital.checked(), Some(capital));
        let hostile = Capital { logs: [1e300; EXPERTS], paid_s: 0.0 };
        assert_eq!(hostile.checked(), None);
    }
}
