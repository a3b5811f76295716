//! The state of the sources in shared data, for every worker and for the next configuration.

use core::net::{IpAddr, SocketAddr};

use crate::discovery::found::{Found, WEIGHTS};
use crate::discovery::source::{Origin, Source};
use crate::sharing::codec::{Reader, Writer};
use config::MAX_ENDPOINTS;
use engine::endpoint::{Absence, Absences, AnnouncedHealth};

/// A source of one upstream: [`rng::hash`](engine::rng::hash) of the cluster's name, and the kind of source.
pub type Key = (u64, Origin);

/// Encodes the state of these sources for shared data.
#[inline(never)]
pub fn encode<'s>(sources: impl ExactSizeIterator<Item = (Key, &'s Source)>) -> Vec<u8> {
    let mut w = Writer::versioned();
    w.u32(sources.len() as u32);
    for ((cluster, origin), source) in sources {
        w.u64(cluster);
        w.bytes(&[match origin {
            Origin::Prometheus => 0,
            Origin::Envoy => 1,
        }]);
        w.time(source.last_success);
        w.u64(source.answers);
        w.u64(source.failures);
        w.text(&source.error);
        w.bytes(&[source.outage.into(), source.alone.into()]);
        w.u32(source.skipped);
        w.text(&source.examples);
        w.f64(source.unsteerable);
        w.bytes(&[source.subsets.into()]);
        w.u64(source.question);
        w.bytes(&[source.named_any.into()]);
        w.f64(source.absences.longest_s);
        w.u32(source.absences.open.len() as u32);
        for absence in &source.absences.open {
            address(&mut w, absence.address);
            w.time(absence.since);
            w.u32(absence.answers);
        }
        w.u32(source.found.len() as u32);
        source.found.iter().for_each(|found| write(&mut w, found));
    }
    w.0
}

fn address(w: &mut Writer, address: SocketAddr) {
    match address.ip() {
        IpAddr::V4(ip) => {
            w.bytes(&[4]);
            w.bytes(&ip.octets());
        }
        IpAddr::V6(ip) => {
            w.bytes(&[6]);
            w.bytes(&ip.octets());
        }
    }
    w.bytes(&address.port().to_le_bytes());
}

#[inline(never)]
fn write(w: &mut Writer, found: &Found) {
    address(w, found.address);
    w.f64(found.weight.unwrap_or(0.0));
    w.u32(found.priority.map_or(u32::MAX, |priority| priority.min(u32::MAX - 1)));
    w.text(&found.zone);
    w.text(&found.locality);
    w.f64(found.locality_weight.unwrap_or(-1.0));
    w.text(&found.version);
    w.bytes(&[match found.condition {
        AnnouncedHealth::Serving => 0,
        AnnouncedHealth::Degraded => 1,
        AnnouncedHealth::Unhealthy => 2,
        AnnouncedHealth::Draining => 3,
    }]);
}

/// Decodes shared data; `None` if it is malformed.
#[inline(never)]
pub fn decode(bytes: &[u8]) -> Option<Vec<(Key, Source)>> {
    let mut r = Reader::versioned(bytes)?;
    let mut sources = Vec::new();
    for _ in 0..r.u32()? {
        let cluster = r.u64()?;
        let origin = match r.byte()? {
            0 => Origin::Prometheus,
            1 => Origin::Envoy,
            _ => return None,
        };
        let mut source = Source {
            last_success: r.time()?,
            answers: r.u64()?,
            failures: r.u64()?,
            error: r.text()?.into(),
            outage: r.byte()? != 0,
            alone: r.byte()? != 0,
            skipped: r.u32()?,
            examples: r.text()?.into(),
            unsteerable: r.f64()?,
            subsets: r.byte()? != 0,
            question: r.u64()?,
            named_any: r.byte()? != 0,
            absences: absences(&mut r)?,
            found: Vec::new(),
        };
        for _ in 0..r.u32()? {
            let found = read(&mut r)?;
            if source.found.len() < MAX_ENDPOINTS {
                source.found.push(found);
            }
        }
        sources.push(((cluster, origin), source));
    }
    Some(sources)
}

fn absences(r: &mut Reader<'_>) -> Option<Absences> {
    let longest_s = r.f64()?;
    let mut open = Vec::new();
    for _ in 0..r.u32()? {
        let absence = Absence { address: read_address(r)?, since: r.time()?, answers: r.u32()? };
        if open.len() < MAX_ENDPOINTS {
            open.push(absence);
        }
    }
    Some(Absences::reported(open, longest_s))
}

fn read_address(r: &mut Reader<'_>) -> Option<SocketAddr> {
    let ip: IpAddr = match r.byte()? {
        4 => r.array::<4>()?.into(),
        6 => r.array::<16>()?.into(),
        _ => return None,
    };
    Some(SocketAddr::new(ip, u16::from_le_bytes(r.array()?)))
}

#[inline(never)]
fn read(r: &mut Reader<'_>) -> Option<Found> {
    Some(Found {
        address: read_address(r)?,
        weight: Some(r.f64()?).filter(|weight| WEIGHTS.contains(weight)),
        priority: Some(r.u32()?).filter(|priority| *priority != u32::MAX),
        zone: r.text()?.into(),
        locality: r.text()?.into(),
        locality_weight: Some(r.f64()?).filter(|weight| (0.0..=f64::from(u32::MAX)).contains(weight)),
        version: r.text()?.into(),
        condition: match r.byte()? {
            0 => AnnouncedHealth::Serving,
            1 => AnnouncedHealth::Degraded,
            2 => AnnouncedHealth::Unhealthy,
            3 => AnnouncedHealth::Draining,
            _ => return None,
        },
    })
}

#[cfg(test)]
mod tests {
    #[cfg(all(target_family = "wasm", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;
    use engine::time::Time;

    fn address(at: usize) -> SocketAddr {
        SocketAddr::from(([10, 0, (at >> 8) as u8, at as u8], 80))
    }

    /// Any filter with the same `vm_id` can write it.
    #[test]
    fn what_is_read_is_bounded_whatever_was_written() {
        let found = (0..MAX_ENDPOINTS + 2).map(|at| Found::at(address(at))).collect();
        let absent = |at| Absence { address: address(at), since: Time(7), answers: 1 };
        let absences = Absences::reported((0..MAX_ENDPOINTS + 2).map(absent).collect(), 1.0);
        let source = Source { found, absences, last_success: Time(7), ..Source::default() };
        let read = decode(&encode([((1, Origin::Envoy), &source)].into_iter())).unwrap();
        let [(key, read)] = read.as_slice() else { panic!("{} sources", read.len()) };
        assert_eq!(*key, (1, Origin::Envoy));
        assert_eq!((read.found.len(), read.absences.open.len()), (MAX_ENDPOINTS, MAX_ENDPOINTS));
        assert_eq!(read.found.last().map(|found| found.address), Some(address(MAX_ENDPOINTS - 1)));
    }

    #[test]
    fn a_weight_out_of_its_range_is_none() {
        for (written, read) in [(2.0, Some(2.0)), (1e6, Some(1e6)), (1e7, None), (-1.0, None)] {
            let found = vec![Found { weight: Some(written), ..Found::at(address(1)) }];
            let source = Source { found, ..Source::default() };
            let sources = decode(&encode([((1, Origin::Prometheus), &source)].into_iter())).unwrap();
            assert_eq!(sources[0].1.found[0].weight, read, "{written}");
        }
    }
}
