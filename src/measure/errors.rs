//! The share of an endpoint's answers that are failures, over about its last twenty.

/// Weight of the newest answer once enough have been seen.
const STEP: f32 = 0.05;

/// Time constant with which unconfirmed failures are forgotten, seconds.
const MEMORY_S: f64 = 10.0;

/// An exponentially weighted failure ratio; a success when nothing is known.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ErrorRatio(f32);

impl ErrorRatio {
    /// Takes an answer into account.
    pub fn observe(&mut self, failed: bool) {
        self.0 += STEP * (f32::from(u8::from(failed)) - self.0);
    }

    /// Lets `seconds` pass: what is not confirmed is half forgotten after seven seconds.
    pub fn fade(&mut self, seconds: f64) {
        self.0 *= (1.0 - seconds / MEMORY_S).max(0.0) as f32;
    }

    /// Forgets the failures: the endpoint has proven itself since.
    pub fn forgive(&mut self) {
        self.0 = 0.0;
    }

    /// The standard deviation of the estimate where the true ratio is `ratio`: √(p(1−p)·s/(2−s)) for step s.
    pub fn spread(ratio: f64) -> f64 {
        let step = f64::from(STEP);
        (ratio * (1.0 - ratio) * step / (2.0 - step)).max(0.0).sqrt()
    }

    /// The ratio, 0..=1.
    pub fn ratio(&self) -> f64 {
        f64::from(self.0)
    }
}

#[cfg(test)]
mod tests {
    #[cfg(all(target_family = "wasm", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    #[test]
    fn approaches_the_true_ratio() {
        let mut errors = ErrorRatio::default();
        let mut sum = 0.0;
        for i in 0..2000 {
            errors.observe(i % 4 == 0);
            sum += errors.ratio();
        }
        assert!((sum / 2000.0 - 0.25).abs() < 0.02);
        errors.forgive();
        assert_eq!(errors.ratio(), 0.0);
    }
}
