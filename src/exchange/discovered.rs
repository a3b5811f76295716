//! Who the sources say the endpoints are, for every worker, and for the next configuration.

use core::net::{IpAddr, SocketAddr};

use super::codec::{Reader, Writer};
use crate::config::MOST_ENDPOINTS;
use crate::fleet::{Condition, Found, Origin, Source, WEIGHTS};

/// A source of one upstream: [`random::hash`](crate::random::hash) of the cluster's name, and which source it is.
pub type Key = (u64, Origin);

/// What the lease holder knows of these sources, as bytes for shared data.
pub fn encode<'s>(sources: impl ExactSizeIterator<Item = (Key, &'s Source)>) -> Vec<u8> {
    let mut w = Writer::versioned();
    w.u32(sources.len() as u32);
    for ((cluster, origin), source) in sources {
        w.u64(cluster);
        w.bytes(&[match origin {
            Origin::Prometheus => 0,
            Origin::Envoy => 1,
        }]);
        w.time(source.answered);
        w.u64(source.answers);
        w.u64(source.failures);
        w.text(&source.error);
        w.u32(source.skipped);
        w.u32(source.empties);
        w.time(source.empty_since);
        w.u32(source.found.len() as u32);
        source.found.iter().for_each(|found| write(&mut w, found));
    }
    w.0
}

fn write(w: &mut Writer, found: &Found) {
    match found.address.ip() {
        IpAddr::V4(ip) => {
            w.bytes(&[4]);
            w.bytes(&ip.octets());
        }
        IpAddr::V6(ip) => {
            w.bytes(&[6]);
            w.bytes(&ip.octets());
        }
    }
    w.bytes(&found.address.port().to_le_bytes());
    w.f64(found.weight.unwrap_or(0.0));
    w.u32(found.priority.map_or(u32::MAX, |priority| priority.min(u32::MAX - 1)));
    w.text(&found.zone);
    w.text(&found.version);
    w.bytes(&[match found.condition {
        Condition::Serving => 0,
        Condition::Degraded => 1,
        Condition::Unhealthy => 2,
        Condition::Draining => 3,
    }]);
}

/// From bytes of shared data; `None` if they are malformed.
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
            answered: r.time()?,
            answers: r.u64()?,
            failures: r.u64()?,
            error: r.text()?.into(),
            skipped: r.u32()?,
            empties: r.u32()?,
            empty_since: r.time()?,
            found: Vec::new(),
        };
        for _ in 0..r.u32()? {
            let found = read(&mut r)?;
            if source.found.len() < MOST_ENDPOINTS {
                source.found.push(found);
            }
        }
        sources.push(((cluster, origin), source));
    }
    Some(sources)
}

fn read(r: &mut Reader<'_>) -> Option<Found> {
    let ip: IpAddr = match r.byte()? {
        4 => r.array::<4>()?.into(),
        6 => r.array::<16>()?.into(),
        _ => return None,
    };
    let port = u16::from_le_bytes(r.array()?);
    Some(Found {
        address: SocketAddr::new(ip, port),
        weight: Some(r.f64()?).filter(|weight| WEIGHTS.contains(weight)),
        priority: Some(r.u32()?).filter(|priority| *priority != u32::MAX),
        zone: r.text()?.into(),
        version: r.text()?.into(),
        condition: match r.byte()? {
            0 => Condition::Serving,
            1 => Condition::Degraded,
            2 => Condition::Unhealthy,
            3 => Condition::Draining,
            _ => return None,
        },
    })
}
