//! How loaded endpoints are said to be in known states, and which of them count.

#[cfg(all(target_family = "wasm", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

use super::*;
use crate::Failure;
use crate::estimate::Slots;
use crate::settings::{PressureTerm, PressureValue};

/// A cluster whose pressure is this value.
fn pressed(value: PressureValue, specs: &[Spec]) -> Cluster {
    let mut settings = settings();
    settings.pressure = vec![PressureTerm { value, weight: 1.0, full: 1.0, most: 1e9 }];
    settings.failover.panic_percent = 0.0;
    settings.health.max_ejected_percent = 100.0;
    settings.signals = vec![signal("queue")];
    let mut cluster = cluster(&settings, specs);
    (0..2).for_each(|_| cluster.refresh(s(0.0)));
    cluster
}

fn send(cluster: &mut Cluster, index: u32, requests: u32) {
    (0..requests).for_each(|_| _ = cluster.started(index, s(0.0)));
}

#[test]
fn a_pressure_is_in_the_unit_that_it_is_documented_in() {
    let of = |value, cluster: &dyn Fn(&mut Cluster)| {
        let mut made = pressed(value, &[Spec { weight: 2.0, ..endpoint(1) }, endpoint(2), endpoint(3)]);
        cluster(&mut made);
        made.endpoint_pressure(0, s(1.0))
    };
    assert_eq!(of(PressureValue::InFlight, &|c| send(c, 0, 6)), Some(3.0), "by its weight");
    let ms = of(PressureValue::LatencyMs, &|c| {
        (0..20).for_each(|_| c.endpoints.states[0].latency.observe(0.05, s(0.0), s(0.0), &Ablation::ALL));
    });
    assert!(ms.is_some_and(|ms| (49.0..51.0).contains(&ms)), "{ms:?} ms");
    assert_eq!(of(PressureValue::LatencyMs, &|_| {}), None, "never measured");
    let percent = of(PressureValue::ErrorPercent, &|c| {
        let endpoint = c.endpoints.set.reference(0).unwrap();
        (0..200).for_each(|_| c.record_outcome(endpoint, s(0.9), Some(Failure::TooMany), s(0.9)));
    });
    assert!(percent.is_some_and(|percent| percent > 90.0), "{percent:?} %, though no latency is known");
    assert_eq!(of(PressureValue::ErrorPercent, &|_| {}), None, "never measured");
}

#[test]
fn a_signal_presses_while_it_is_believed() {
    let mut cluster = pressed(PressureValue::Signal(0), &fleet(2));
    let hash = cluster.endpoints.set.identities()[0];
    cluster.set_signal(0, hash, 7.0, s(0.0));
    assert_eq!(cluster.endpoint_pressure(0, s(1.0)), Some(7.0));
    assert_eq!(cluster.endpoint_pressure(1, s(1.0)), None);
    assert_eq!(cluster.endpoint_pressure(0, s(600.0)), None, "too old");
}

/// What an endpoint of weight `weight` beside two of weight 1 is at with so many requests, where so many fill it.
fn occupancy(weight: f64, requests: u32, count: f32, found: bool) -> Option<f64> {
    let specs = [Spec { weight, ..endpoint(1) }, endpoint(2), endpoint(3)];
    let mut cluster = pressed(PressureValue::Occupancy, &specs);
    cluster.set_others_slots(Some(Slots { count, found }));
    send(&mut cluster, 0, requests);
    cluster.endpoint_pressure(0, s(0.0))
}

#[test]
fn occupancy_is_what_is_on_its_way_of_what_fits() {
    for requests in [0, 1, 4, 5, 8, 80] {
        let part = occupancy(1.0, requests, 8.0, true).unwrap();
        assert!((part - f64::from(requests) / 8.0).abs() < 1e-6, "{requests} of eight: {part}");
    }
    // An endpoint of mean weight has so many; one of twice the weight works on twice as many.
    let twice = occupancy(4.0, 8, 8.0, true).unwrap();
    assert!((twice - 0.5).abs() < 1e-6, "eight of sixteen, mean weight two: {twice}");
    // While none was seen to be full, few are few, and many are nothing certain.
    let few = occupancy(1.0, 4, 8.0, false).unwrap();
    assert!((few - 0.5).abs() < 1e-6, "{few}");
    assert!(occupancy(1.0, 8, 8.0, false).is_none_or(|part| part < 1.0));
}

/// Four endpoints at work, two of a second priority that stand by.
fn standing_by() -> Cluster {
    let specs: Vec<Spec> =
        (0..6).map(|nth| Spec { priority: u32::from(nth > 3), ..endpoint(nth + 1) }).collect();
    let mut cluster = pressed(PressureValue::InFlight, &specs);
    (0..4).for_each(|index| send(&mut cluster, index, 4));
    cluster
}

#[test]
fn only_endpoints_that_are_meant_to_work_press() {
    let mut cluster = standing_by();
    let measured = |cluster: &Cluster| {
        let (pressure, replicas) = cluster.measure_pressure(s(0.0));
        (pressure.map(|pressure| pressure.value), replicas.there, replicas.working)
    };
    assert_eq!(measured(&cluster), (Some(4.0), 4, 4), "those that stand by are idle by design");
    for (is, there) in [(Is::Failed, 4), (Is::Unhealthy, 4), (Is::Draining, 3)] {
        let mut cluster = standing_by();
        cluster.endpoints.states[0].in_flight = Default::default();
        cluster.make(0, is);
        cluster.eject();
        assert_eq!(
            measured(&cluster),
            (Some(4.0), there, 3),
            "{is:?}: its idleness says nothing of the others"
        );
    }
    cluster.make(1, Is::Degraded);
    cluster.eject();
    assert_eq!(measured(&cluster), (Some(4.0), 3, 3), "one that is spared is idle by design, too");
}

/// Their idleness says nothing of the load: those that are left do their work.
#[test]
fn endpoints_out_of_traffic_are_no_idle_ones() {
    for is in [Is::Ruled, Is::Held, Is::Stalled, Is::Suspect, Is::Recovering] {
        let mut cluster = standing_by();
        cluster.endpoints.states[0].in_flight = Default::default();
        cluster.make(0, is);
        cluster.eject();
        let (pressure, replicas) = cluster.measure_pressure(s(0.0));
        let measured = (pressure.map(|pressure| pressure.value), replicas.there, replicas.working);
        assert_eq!(measured, (Some(4.0), 4, 3), "{is:?}");
        let mut panics = pressed(PressureValue::InFlight, &fleet(4));
        panics.config.failover.panic_percent = 100.0;
        panics.make(0, is);
        panics.eject();
        assert_eq!(panics.measure_pressure(s(0.0)).1.working, 4, "{is:?}: in panic it works");
    }
}

fn scaled(max: u32) -> settings::Autoscale {
    settings::Autoscale {
        target_pressure: 0.8,
        min: 2,
        max,
        periods: 2,
        period: Duration::from_secs(30),
        cool_down: Duration::from_secs(300),
        tolerance_percent: 10.0,
        look_ahead: Duration::from_secs(30),
    }
}

/// Endpoints that stood by and take load over were counted on before. Without them the number would fall at once, and
/// while load rises.
#[test]
fn the_desired_number_stays_when_endpoints_begin_or_cease_to_carry_load() {
    let mut cluster = standing_by();
    cluster.config.autoscale = Some(scaled(20));
    cluster.scale_replicas(s(1.0));
    cluster.capacity.scaler.desired = Some(5);
    let divide = |cluster: &mut Cluster, there: u32| {
        cluster.eject();
        cluster.divide(0.0, s(0.0));
        assert_eq!(cluster.measure_pressure(s(0.0)).1.there, there);
    };
    for second in [2.0, 4.0] {
        (0..2).for_each(|index| cluster.make(index, Is::Failed));
        divide(&mut cluster, 6);
        assert_eq!(cluster.desired_replicas(), Some(7), "before the next sample");
        cluster.scale_replicas(s(second));
        assert_eq!(cluster.desired_replicas(), Some(7), "after it");
        (0..2).for_each(|index| cluster.endpoints.states[index].health = Default::default());
        divide(&mut cluster, 4);
        assert_eq!(cluster.desired_replicas(), Some(7));
        cluster.scale_replicas(s(second + 1.0));
        assert_eq!(cluster.desired_replicas(), Some(7));
    }
    cluster.make(5, Is::Draining);
    divide(&mut cluster, 4);
    cluster.scale_replicas(s(6.0));
    assert_eq!(cluster.desired_replicas(), Some(6), "one that goes is not counted on");
    // Those that join to carry load were asked for.
    let more: Vec<Spec> =
        (0..8).map(|nth| Spec { priority: u32::from([4, 5].contains(&nth)), ..endpoint(nth + 1) }).collect();
    cluster.set_fleet(&more, s(0.0));
    assert_eq!(cluster.desired_replicas(), Some(7));
}

#[test]
fn standby_replicas_are_added_to_the_desired_number() {
    let mut cluster = standing_by();
    assert_eq!(cluster.desired_replicas(), None);
    cluster.capacity.scaler.desired = Some(5);
    assert_eq!(cluster.desired_replicas(), Some(7));
    cluster.make(5, Is::Draining);
    cluster.eject();
    assert_eq!(cluster.desired_replicas(), Some(6), "one that is about to go is not counted on");
    cluster.config.autoscale = Some(scaled(5));
    assert_eq!(cluster.desired_replicas(), Some(5), "no more than is allowed");
    cluster.config.autoscale = Some(scaled(4));
    assert_eq!(cluster.desired_replicas(), Some(5), "but what has load is never taken away for it");
}
