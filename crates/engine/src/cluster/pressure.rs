//! Pressure on the endpoints, and the scaling that follows from it.

use super::Cluster;
use crate::autoscale::{Division, Pressure, Replicas, Scaler, Tally};
use crate::cluster::probes::WORTH_EXPLORING;
use crate::endpoint::{AnnouncedHealth, EndpointState, EndpointView};
use crate::estimate::Slots;
use crate::health::State;
use crate::settings::PressureValue;
use crate::time::Time;

/// Occupancy up to which its upper bound is used as it is. Until an endpoint has been seen to fill up, only that bound
/// is known: requests in flight over the most that were served well. Above this value, the rise of latency over its own
/// minimum says how much of the rest is taken.
const SURELY_LOW: f64 = 0.5;

/// How many requests an endpoint works on at a time, and the replicas that follow from the load.
#[derive(Default)]
pub(super) struct Capacity {
    /// Merged estimate of the other workers.
    others: Option<Slots>,
    pub scaler: Scaler,
}

impl Cluster {
    /// Smoothed pressure on the cluster, the same in every worker: 0 is idle, 1 is full. `None` while too little is
    /// known.
    pub fn pressure(&self) -> Option<f64> {
        self.capacity.scaler.shown
    }

    /// Desired number of replicas including standby endpoints, the same in every worker. `None` without `autoscale`,
    /// and until a whole period has been observed.
    pub fn desired_replicas(&self) -> Option<u32> {
        let Scaler { desired, division, .. } = &self.capacity.scaler;
        let now = self.division();
        let loaded = division.carry((*desired)?, now);
        let most = self.config.autoscale.as_ref().map_or(u32::MAX, |of| of.max);
        Some(loaded.saturating_add(now.standby).min(most.max(loaded)))
    }

    /// Current pressure on the endpoint at `index`, by the same terms as the cluster's.
    pub fn endpoint_pressure(&self, index: u32, now: Time) -> Option<f64> {
        let endpoint = self.endpoint(index)?;
        let mut tally = Tally::new(&self.config.pressure);
        let slots = self.slots();
        tally.add(|value| self.pressing(index, endpoint, value, slots, now));
        tally.pressure().map(|pressure| pressure.value)
    }

    /// This worker's estimate of how many requests an endpoint works on at a time.
    pub fn own_slots(&self) -> Option<Slots> {
        self.queueing.slots()
    }

    /// Sets the other workers' merged estimate of the same.
    pub fn set_others_slots(&mut self, slots: Option<Slots>) {
        self.capacity.others = slots;
    }

    /// State of the scaler.
    pub fn scaler(&self) -> &Scaler {
        &self.capacity.scaler
    }

    /// Sets the state of the scaler, as computed by another worker.
    pub fn set_scaler(&mut self, scaler: Scaler) {
        self.capacity.scaler = scaler;
    }

    /// Measures the pressure and updates the desired replicas; called in one worker of the process.
    pub fn scale_replicas(&mut self, now: Time) {
        let (pressure, replicas) = self.measure_pressure(now);
        if self.config.autoscale.is_some() {
            self.capacity.scaler.divide(self.division());
        }
        self.capacity.scaler.observe(self.config.autoscale.as_ref(), pressure, replicas, now);
    }

    /// Merged estimate of how many requests an endpoint works on at a time.
    pub(super) fn slots(&self) -> Option<Slots> {
        Slots::merged(self.own_slots(), self.capacity.others)
    }

    pub(super) fn measure_pressure(&self, now: Time) -> (Option<Pressure>, Replicas) {
        let slots = self.slots();
        let mut tally = Tally::new(&self.config.pressure);
        let mut there = 0;
        for (index, endpoint) in self.endpoints.views().filter(|(_, m)| self.loaded(m)) {
            there += 1;
            // An ejected endpoint does no work: neither its idleness nor its silence says anything about the load. One
            // that fails does none either, though it may have to stay in traffic.
            let fails =
                endpoint.health.state() == State::Failed || endpoint.constraints.announced.is_unavailable();
            if endpoint.eligible && !fails {
                tally.add(|value| self.pressing(index, endpoint, value, slots, now));
            }
        }
        (tally.pressure(), Replicas { there, working: tally.endpoints() })
    }

    /// Whether `endpoint` is meant to carry load. Standby endpoints, such as those of another priority or zone, of a
    /// version without a share, or degraded ones, are idle by design, which says nothing about the load.
    fn loaded(&self, endpoint: &EndpointState) -> bool {
        let degraded_out = endpoint.degraded() && !endpoint.eligible;
        let draining = endpoint.constraints.announced == AnnouncedHealth::Draining;
        let subset = self.subsets.list.get(endpoint.subset as usize);
        endpoint.present
            && !draining
            && !degraded_out
            && subset.is_some_and(|g| g.division.load >= WORTH_EXPLORING)
    }

    /// The endpoints that carry load, and those on standby.
    fn division(&self) -> Division {
        let stays = |m: &&EndpointState| m.present && m.constraints.announced != AnnouncedHealth::Draining;
        let mut division = Division::default();
        for endpoint in self.endpoints.states.iter().filter(stays) {
            let count = if self.loaded(endpoint) { &mut division.loaded } else { &mut division.standby };
            *count += 1;
        }
        division
    }

    /// The value of one pressure term for the endpoint at `index`.
    pub(super) fn pressing(
        &self,
        index: u32,
        endpoint: EndpointView<'_>,
        value: PressureValue,
        slots: Option<Slots>,
        now: Time,
    ) -> Option<f64> {
        let weight = f64::from(endpoint.weight.max(f32::MIN_POSITIVE));
        match value {
            PressureValue::Signal(at) => {
                let reading = self.readings(index).get(at)?;
                let known = reading.confidence(now, self.fresh_s()) > 0.0;
                known.then(|| reading.get(now).map(|(value, _)| value)).flatten()
            }
            PressureValue::InFlight => Some(f64::from(endpoint.total_in_flight()) / weight),
            PressureValue::Occupancy => {
                let slots = slots?;
                let unit = self.subsets.list.get(endpoint.subset as usize).map_or(1.0, |g| g.turns.unit);
                let crowd = f64::from(endpoint.pending()) * f64::from(unit) / weight;
                let occupancy = crowd / f64::from(slots.count);
                if slots.found || occupancy <= SURELY_LOW {
                    return Some(occupancy);
                }
                let risen = self.queueing.risen((crowd - 1.0).max(0.0) as u32)?;
                Some(occupancy.min(SURELY_LOW + (1.0 - SURELY_LOW) * f64::from(risen)))
            }
            PressureValue::LatencyMs => endpoint.centre().map(|(centre, _)| centre.exp() * 1e3),
            PressureValue::ErrorPercent => {
                let ratio = self.error_ratio(index, now);
                (ratio > 0.0 || endpoint.centre().is_some()).then_some(100.0 * ratio)
            }
        }
    }
}
