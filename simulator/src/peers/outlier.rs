//! Envoy's outlier detection as documented: consecutive failures, process-wide
//! (<https://www.envoyproxy.io/docs/envoy/latest/intro/arch_overview/upstream/outlier>). The statistical detectors need
//! more requests per interval than these short runs have.

use engine::time::Time;

/// `consecutive_5xx`; timeouts and refused connections count as 5xx.
const CONSECUTIVE: u32 = 5;
/// `base_ejection_time`, seconds; multiplied by the number of ejections.
const BASE_S: f64 = 30.0;
/// `max_ejection_time`, seconds.
const MAX_S: f64 = 300.0;
/// `interval`, seconds: how often it checks whether an ejection is over.
const INTERVAL_S: f64 = 10.0;
/// `max_ejection_percent`; one host may always be ejected. Envoy's default is 10; with 50 it can help if more than one
/// endpoint fails.
const MAX_PERCENT: usize = 50;

#[derive(Clone, Copy, Debug, Default)]
struct Host {
    failures: u32,
    times: u32,
    ejected_at: Option<Time>,
}

/// State of the outlier detection.
#[derive(Clone, Debug)]
pub struct Outlier {
    hosts: Vec<Host>,
    swept: Time,
    ejected: usize,
}

impl Outlier {
    /// Creates it, with no endpoint ejected.
    pub fn new(endpoints: usize, now: Time) -> Outlier {
        Outlier { hosts: vec![Host::default(); endpoints], swept: now, ejected: 0 }
    }

    /// Whether `endpoint` is ejected.
    pub fn ejected(&self, endpoint: usize) -> bool {
        self.hosts[endpoint].ejected_at.is_some()
    }

    /// Records an answer of `endpoint`; returns whether it is ejected now.
    pub fn ended(&mut self, endpoint: usize, good: bool, now: Time) -> bool {
        let most = (self.hosts.len() * MAX_PERCENT / 100).max(1);
        let host = &mut self.hosts[endpoint];
        host.failures = if good { 0 } else { host.failures + 1 };
        if host.failures < CONSECUTIVE || host.ejected_at.is_some() || self.ejected >= most {
            return false;
        }
        host.failures = 0;
        host.times += 1;
        host.ejected_at = Some(now);
        self.ejected += 1;
        true
    }

    /// Checks whether ejections are over; returns whether any endpoint was readmitted.
    pub fn tick(&mut self, now: Time) -> bool {
        if now.seconds_since(self.swept) < INTERVAL_S {
            return false;
        }
        self.swept = now;
        let mut returned = false;
        for host in &mut self.hosts {
            let over = (BASE_S * f64::from(host.times)).min(MAX_S);
            if host.ejected_at.is_some_and(|at| now.seconds_since(at) >= over) {
                host.ejected_at = None;
                self.ejected -= 1;
                returned = true;
            } else if host.ejected_at.is_none() {
                host.times = host.times.saturating_sub(1);
            }
        }
        returned
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn s(seconds: u64) -> Time {
        Time(1_000_000_000 * (1000 + seconds))
    }

    #[test]
    fn five_in_a_row_eject_and_the_sweep_after_thirty_seconds_returns() {
        let mut outlier = Outlier::new(10, s(0));
        (0..4).for_each(|_| assert!(!outlier.ended(3, false, s(1))));
        outlier.ended(3, true, s(1));
        (0..4).for_each(|_| assert!(!outlier.ended(3, false, s(2))));
        assert!(outlier.ended(3, false, s(2)) && outlier.ejected(3));
        // Ejections are checked every ten seconds; at 30 s it has been out for 28 s.
        for second in 3..45 {
            outlier.tick(s(second));
            assert_eq!(outlier.ejected(3), second < 40, "{second}");
        }
    }

    #[test]
    fn the_second_ejection_is_longer_and_half_of_the_fleet_stays() {
        let mut outlier = Outlier::new(4, s(0));
        for host in [0, 1, 2, 3] {
            (0..5).for_each(|_| _ = outlier.ended(host, false, s(1)));
        }
        assert_eq!([0, 1, 2, 3].map(|h| outlier.ejected(h)), [true, true, false, false]);
        (2..=40).for_each(|second| _ = outlier.tick(s(second)));
        assert!(!outlier.ejected(0));
        (0..5).for_each(|_| _ = outlier.ended(0, false, s(41)));
        let returned = (42..200).find(|second| outlier.tick(s(*second)) && !outlier.ejected(0));
        assert_eq!(returned, Some(110), "the sweep after twice thirty seconds");
    }
}
