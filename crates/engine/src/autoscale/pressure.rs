//! Pressure: how loaded a cluster is, as one number: Σ weight · min(value / full, most) over Σ weight.
//!
//! With weights that add up to 1 this is the sum as operators write it: 0.4 · CPU / 75 + 0.3 · min(queue / 50, 2) + 0.3
//! · GPU / 80. Each term is the mean over the endpoints that report it.
//!
//! **Unknown values count neither as idle nor as overload.** A term that less than half of the endpoints report is left
//! out and the weights of the others take its place; if less than half of the weight is known, there is no pressure.

use crate::settings::{PressureTerm, PressureValue};

/// Minimum fraction of endpoints for a term to count, and of weights for the pressure.
const ENOUGH: f64 = 0.5;

/// How loaded a cluster is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pressure {
    /// 0 is idle, 1 is full by the operator's own measure; at most the largest `most`.
    pub value: f64,
    /// Fraction of the endpoints that it is based on, 0.5..=1.
    pub known: f64,
}

/// Sums the terms over endpoints.
#[derive(Debug)]
pub struct Tally<'a> {
    terms: &'a [PressureTerm],
    /// Sum and number of reporting endpoints, by term.
    sums: Vec<(f64, u32)>,
    endpoints: u32,
}

impl<'a> Tally<'a> {
    /// No endpoints yet.
    pub fn new(terms: &'a [PressureTerm]) -> Tally<'a> {
        Tally { terms, sums: vec![(0.0, 0); terms.len()], endpoints: 0 }
    }

    /// Adds an endpoint, with the terms for which `value` is known.
    pub fn add(&mut self, value: impl Fn(PressureValue) -> Option<f64>) {
        self.endpoints += 1;
        for (term, (sum, reporting)) in self.terms.iter().zip(&mut self.sums) {
            if let Some(value) = value(term.value).filter(|value| value.is_finite()) {
                *sum += (value.max(0.0) / term.full).min(term.most);
                *reporting += 1;
            }
        }
    }

    /// Number of endpoints added.
    pub fn endpoints(&self) -> u32 {
        self.endpoints
    }

    /// The pressure, if enough is known.
    pub fn pressure(&self) -> Option<Pressure> {
        let (mut all, mut known, mut value, mut reporting) = (0.0, 0.0, 0.0, 0.0);
        for (term, (sum, of)) in self.terms.iter().zip(&self.sums) {
            all += term.weight;
            let share = f64::from(*of) / f64::from(self.endpoints.max(1));
            if share >= ENOUGH {
                known += term.weight;
                value += term.weight * sum / f64::from(*of);
                reporting += term.weight * share;
            }
        }
        (known > 0.0 && known >= ENOUGH * all)
            .then(|| Pressure { value: value / known, known: reporting / known })
    }
}

#[cfg(test)]
mod tests {
    #[cfg(all(target_family = "wasm", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    /// 0.4 · CPU / 75 + 0.3 · min(queue / 50, 2) + 0.3 · GPU / 80.
    fn usual() -> [PressureTerm; 3] {
        let term =
            |at, weight, full, most| PressureTerm { value: PressureValue::Signal(at), weight, full, most };
        [term(0, 0.4, 75.0, 100.0), term(1, 0.3, 50.0, 2.0), term(2, 0.3, 80.0, 100.0)]
    }

    fn of(endpoints: &[[Option<f64>; 3]]) -> Option<Pressure> {
        let terms = usual();
        let mut tally = Tally::new(&terms);
        for endpoint in endpoints {
            tally.add(|value| match value {
                PressureValue::Signal(at) => endpoint[at],
                _ => None,
            });
        }
        tally.pressure()
    }

    fn close(pressure: Option<Pressure>, value: f64, known: f64) {
        let pressure = pressure.expect("a figure");
        assert!(
            (pressure.value - value).abs() < 1e-12 && (pressure.known - known).abs() < 1e-12,
            "{pressure:?}"
        );
    }

    #[test]
    fn is_the_sum_that_operators_write() {
        let (cpu, queue, gpu) = (60.0, 30.0, 40.0);
        let by_hand = 0.4 * cpu / 75.0 + 0.3 * queue / 50.0 + 0.3 * gpu / 80.0;
        close(of(&[[Some(cpu), Some(queue), Some(gpu)]]), by_hand, 1.0);
        close(of(&[[Some(75.0), Some(1e9), Some(80.0)]]), 0.4 + 0.6 + 0.3, 1.0);
    }

    #[test]
    fn mean_is_over_reporting_endpoints() {
        let full = [Some(75.0), Some(50.0), Some(80.0)];
        let idle = [Some(0.0), Some(-3.0), Some(0.0)];
        close(of(&[full, idle]), 0.5, 1.0);
        close(of(&[full, idle, [None; 3]]), 0.5, 2.0 / 3.0);
    }

    #[test]
    fn a_term_that_few_report_is_left_out_and_too_little_is_no_figure() {
        let without_gpu = [Some(75.0), Some(25.0), None];
        close(of(&[without_gpu, without_gpu]), (0.4 + 0.15) / 0.7, 1.0);
        assert_eq!(of(&[[None, Some(50.0), None]]), None, "the queue alone is a third");
        assert_eq!(of(&[[Some(75.0); 3], [None; 3], [None; 3]]), None, "one of three endpoints");
        assert_eq!(of(&[[None; 3], [Some(f64::NAN); 3]]), None);
        assert_eq!(of(&[]), None);
    }
}
