//! What the endpoints contribute to pressure, and what follows from it.

use super::Cluster;
use crate::autoscale::{Pressure, Replicas, Scaler, Tally};
use crate::cluster::probes::WORTH_EXPLORING;
use crate::endpoint::AnnouncedHealth;
use crate::endpoint::EndpointState;
use crate::endpoint::EndpointView;
use crate::estimate::Slots;
use crate::health::State;
use crate::settings::PressureValue;
use crate::time::Time;

/// As long as no endpoint has been seen to fill up, only an upper bound of the occupancy is known: what is on its way
/// over the most that was served well. It counts where even that is no more than this; above, how far latency has risen
/// from its own floor says how much of the rest is taken.
const SURELY_LOW: f64 = 0.5;

/// How many requests an endpoint works on at a time, and the replicas that follow from the load.
#[derive(Default)]
pub(super) struct Capacity {
    /// What the other workers have learnt of it, all together.
    others: Option<Slots>,
    pub scaler: Scaler,
}

impl Cluster {
    /// How loaded the upstream is, smoothed over some seconds; the same in every worker. 0 is idle, 1 is full;
    /// `None` while too little is known.
    pub fn pressure(&self) -> Option<f64> {
        self.capacity.scaler.shown
    }

    /// How many replicas there should be, those that stand by included; the same in every worker. `None` without
    /// `autoscale`, and until a whole period has been seen.
    pub fn desired_replicas(&self) -> Option<u32> {
        let loaded = self.capacity.scaler.desired?;
        let most = self.config.autoscale.as_ref().map_or(u32::MAX, |of| of.max);
        Some(loaded.saturating_add(self.standing_by()).min(most.max(loaded)))
    }

    /// How loaded the endpoint at `index` is at this moment, by the same terms as the upstream.
    pub fn endpoint_pressure(&self, index: u32, now: Time) -> Option<f64> {
        let member = self.member(index)?;
        let mut tally = Tally::new(&self.config.pressure);
        let slots = self.slots();
        tally.add(|value| self.pressing(index, member, value, slots, now));
        tally.pressure().map(|pressure| pressure.value)
    }

    /// What has been learnt here of how many requests an endpoint works on at a time.
    pub fn own_slots(&self) -> Option<Slots> {
        self.queueing.slots()
    }

    /// Takes what the other workers have learnt of that, all together.
    pub fn set_others_slots(&mut self, slots: Option<Slots>) {
        self.capacity.others = slots;
    }

    /// What scaling has come to.
    pub fn scaler(&self) -> &Scaler {
        &self.capacity.scaler
    }

    /// Takes what scaling has come to elsewhere.
    pub fn set_scaler(&mut self, scaler: Scaler) {
        self.capacity.scaler = scaler;
    }

    /// Looks at the pressure and draws the conclusion; for one worker of the process.
    pub fn scale_replicas(&mut self, now: Time) {
        let (pressure, replicas) = self.measure_pressure(now);
        self.capacity.scaler.observe(self.config.autoscale.as_ref(), pressure, replicas, now);
    }

    /// What is known of how many requests an endpoint works on at a time.
    pub(super) fn slots(&self) -> Option<Slots> {
        Slots::merged(self.own_slots(), self.capacity.others)
    }

    fn measure_pressure(&self, now: Time) -> (Option<Pressure>, Replicas) {
        let slots = self.slots();
        let mut tally = Tally::new(&self.config.pressure);
        let mut there = 0;
        for (index, member) in self.endpoints.views().filter(|(_, m)| self.loaded(m)) {
            there += 1;
            // An endpoint that is out does nothing: neither its idleness nor its silence says anything of the others'
            // load.
            if member.health.state() != State::Failed && !member.constraints.announced.is_unavailable() {
                tally.add(|value| self.pressing(index, member, value, slots, now));
            }
        }
        (tally.pressure(), Replicas { there, working: tally.endpoints() })
    }

    /// Whether `member` is meant to have requests: one that stands by, at another priority, in another zone, of a
    /// version without a share or degraded, is idle by design, and that says nothing of the load.
    fn loaded(&self, member: &EndpointState) -> bool {
        let degraded_out = member.degraded() && !member.eligible;
        let draining = member.constraints.announced == AnnouncedHealth::Draining;
        let subset = self.subsets.list.get(member.subset as usize);
        member.present
            && !draining
            && !degraded_out
            && subset.is_some_and(|g| g.division.load >= WORTH_EXPLORING)
    }

    /// How many stand by.
    fn standing_by(&self) -> u32 {
        let stays = |m: &&EndpointState| m.present && m.constraints.announced != AnnouncedHealth::Draining;
        self.endpoints.states.iter().filter(stays).filter(|m| !self.loaded(m)).count() as u32
    }

    /// What the endpoint at `index` contributes to one term.
    pub(super) fn pressing(
        &self,
        index: u32,
        member: EndpointView<'_>,
        value: PressureValue,
        slots: Option<Slots>,
        now: Time,
    ) -> Option<f64> {
        let weight = f64::from(member.weight.max(f32::MIN_POSITIVE));
        match value {
            PressureValue::Signal(at) => {
                let reading = self.readings(index).get(at)?;
                let known = reading.trust(now, self.fresh_s()) > 0.0;
                known.then(|| reading.get(now).map(|(value, _)| value)).flatten()
            }
            PressureValue::InFlight => Some(f64::from(member.total_in_flight()) / weight),
            PressureValue::Occupancy => {
                let slots = slots?;
                let unit = self.subsets.list.get(member.subset as usize).map_or(1.0, |g| g.turns.unit);
                let crowd = f64::from(member.pending()) * f64::from(unit) / weight;
                let occupancy = crowd / f64::from(slots.count);
                if slots.found || occupancy <= SURELY_LOW {
                    return Some(occupancy);
                }
                let risen = self.queueing.risen((crowd - 1.0).max(0.0) as u32)?;
                Some(occupancy.min(SURELY_LOW + (1.0 - SURELY_LOW) * f64::from(risen)))
            }
            PressureValue::LatencyMs => member.centre().map(|(centre, _)| centre.exp() * 1e3),
            PressureValue::ErrorPercent => {
                let ratio = self.error_ratio(index, now);
                (ratio > 0.0 || member.centre().is_some()).then_some(100.0 * ratio)
            }
        }
    }
}
