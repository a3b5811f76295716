//! Confidence bounds of a probability that hold at all times together: the mixture of all binomials with a beta prior
//! against the one in question (H. Robbins, "Statistical methods related to the law of the iterated logarithm", 1970;
//! for quantiles S. Howard, A. Ramdas, "Sequential estimation of quantiles with applications to A/B testing and
//! best-arm identification", Bernoulli 2022).

/// Weight of a quantile's prior, requests.
const PRIOR: f64 = 20.0;

/// ln Γ(x) for x > 0, by Stirling's series where it is exact to 10⁻¹⁰.
fn ln_gamma(x: f64) -> f64 {
    let (mut x, mut product) = (x.max(1e-6), 1.0);
    while x < 10.0 {
        product *= x;
        x += 1.0;
    }
    let inverse = 1.0 / (x * x);
    let series = (1.0 / 12.0 - inverse * (1.0 / 360.0 - inverse / 1260.0)) / x;
    (x - 0.5) * x.ln() - x + 0.5 * core::f64::consts::TAU.ln() + series - f64::ln(product)
}

fn ln_beta(a: f64, b: f64) -> f64 {
    ln_gamma(a) + ln_gamma(b) - ln_gamma(a + b)
}

/// Log evidence that `hits` of `n` had a probability other than `p`; a and b are the prior's.
fn against(p: f64, hits: f64, n: f64, (a, b): (f64, f64)) -> f64 {
    let p = p.clamp(1e-15, 1.0 - 1e-15);
    ln_beta(hits + a, n - hits + b) - ln_beta(a, b) - hits * p.ln() - (n - hits) * (1.0 - p).ln()
}

/// The boundary of `holds` between `inside`, where it is true, and `outside`, by bisection.
fn edge(inside: f64, outside: f64, holds: impl Fn(f64) -> bool) -> f64 {
    if holds(outside) {
        return outside;
    }
    let (mut inside, mut outside) = (inside, outside);
    for _ in 0..60 {
        let middle = 0.5 * (inside + outside);
        if holds(middle) { inside = middle } else { outside = middle }
    }
    outside
}

/// Bounds of the probability behind `hits` of `n`; the probability that they are ever wrong is `alpha`.
pub fn probability(hits: u64, n: u64, alpha: f64) -> (f64, f64) {
    let (hits, n, enough) = (hits.min(n) as f64, n as f64, -alpha.ln());
    let mean = (hits + 0.5) / (n + 1.0);
    let holds = |p: f64| against(p, hits, n, (0.5, 0.5)) < enough;
    (edge(mean, 0.0, holds), edge(mean, 1.0, holds))
}

/// Bounds of the rank of the quantile `part` among `n`; the probability that they are ever wrong is `alpha`. `None`
/// while `n` is too small.
pub fn ranks(part: f64, n: u64, alpha: f64) -> Option<(f64, f64)> {
    let (n, enough) = (n as f64, -alpha.ln());
    let prior = (PRIOR * part, PRIOR * (1.0 - part));
    let holds = |rank: f64| against(part, rank, n, prior) < enough;
    let bounds = (edge(part * n, 0.0, holds), edge(part * n, n, holds));
    (bounds.0 > 0.0 && bounds.1 < n).then_some(bounds)
}

#[cfg(test)]
mod tests {
    #[cfg(all(target_family = "wasm", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;
    use crate::rng::Rng;

    #[test]
    fn the_gamma_function_is_that_of_the_tables() {
        let mut factorial = 0.0;
        for n in 1..30 {
            assert!((ln_gamma(f64::from(n)) - factorial).abs() < 1e-9, "{n}");
            factorial += f64::from(n).ln();
        }
        assert!((ln_gamma(0.5) - 0.5 * core::f64::consts::PI.ln()).abs() < 1e-9);
    }

    #[test]
    fn the_bounds_hold_at_all_times_together() {
        let (mut rng, mut left, mut off) = (Rng::new(9), 0, 0);
        for _ in 0..400 {
            let (mut hits, mut misses, mut out) = (0, false, false);
            for n in 1..=400u64 {
                hits += u64::from(rng.unit() < 0.1);
                if n % 5 == 0 {
                    let (low, high) = probability(hits, n, 0.05);
                    misses |= !(low..=high).contains(&0.1);
                    let bounds = ranks(0.1, n, 0.05);
                    out |= bounds.is_some_and(|(low, high)| !(low..=high).contains(&(hits as f64)));
                }
            }
            left += u32::from(misses);
            off += u32::from(out);
        }
        // Binomial(400, 0.05) is above 36 with probability 10⁻⁴.
        assert!(left <= 36 && off <= 36, "{left} {off}");
        let (low, high) = probability(100_000, 1_000_000, 0.05);
        assert!(low > 0.098 && high < 0.102, "{low} {high}");
        assert_eq!((probability(0, 0, 0.05), ranks(0.5, 3, 0.05)), ((0.0, 1.0), None));
    }
}
