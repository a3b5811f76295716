//! Whether a failing endpoint serves some of its requests; if so, it is worth more than a long queue elsewhere.

/// Weight of the newest answer: about the last twenty count.
const STEP: f32 = 0.05;
/// Minimum failure ratio of an endpoint that fails intermittently.
const AT_TIMES: f32 = 0.02;
/// Probability of a run of failures below which an endpoint counts as serving nothing.
const CHANCE: f32 = 1e-3;

/// Failure ratio without the latest run of failures, regardless of the request rate, and the length of that run.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Serving {
    before: f32,
    row: u8,
}

impl Serving {
    /// Records an answer.
    pub fn observe(&mut self, failed: bool) {
        if failed {
            self.row = self.row.saturating_add(1);
        } else {
            // Add the failures of the run, then this answer.
            let kept = (1.0 - STEP).powi(self.row.into());
            self.before = (1.0 - (1.0 - self.before) * kept) * (1.0 - STEP);
            self.row = 0;
        }
    }

    /// Failure ratio of an endpoint that serves the other requests; `None` if it is not known to serve any. `run` is the
    /// number of failures in a row that all workers have seen.
    pub fn fails(&self, run: u32) -> Option<f64> {
        let chance = self.before.powi(run.clamp(self.row.into(), u8::MAX.into()) as i32);
        (self.before >= AT_TIMES && chance >= CHANCE).then_some(self.before.into())
    }
}

#[cfg(test)]
mod tests {
    #[cfg(all(target_family = "wasm", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    #[test]
    fn intermittent_failures_differ_from_permanent_ones() {
        let mut serving = Serving::default();
        let mut take = |failed: &[bool]| {
            failed.iter().for_each(|failed| serving.observe(*failed));
            serving.fails(0)
        };
        assert_eq!(take(&[true; 5]), None, "it has served nothing yet");
        let at_times: Vec<bool> = (0..200).map(|i| i % 7 == 0).collect();
        let ratio = take(&at_times).unwrap();
        assert!((0.1..0.2).contains(&ratio), "{ratio}");
        assert_eq!(take(&[true; 3]), Some(ratio), "three in a row come by chance");
        assert_eq!(take(&[true; 3]), None, "six do not");
        let mut other = Serving::default();
        at_times.iter().for_each(|failed| other.observe(*failed));
        let serves = [3, 6].map(|run| other.fails(run).is_some());
        assert_eq!(serves, [true, false], "whichever worker saw them");
        assert!(take(&[false]).is_some_and(|more| more > ratio));
        assert_eq!(take(&[false; 100]), None, "it has recovered");
        take(&at_times);
        for failures in [250, 2, 2, 2, 40] {
            assert_eq!(take(&vec![true; failures]), None, "however many there are in a row");
        }
    }
}
