//! Hostcalls on counters, gauges and histograms.

use super::hostcalls;
use crate::abi::Status;
use crate::contexts::Contexts;
use crate::metrics::Kind;
use wasmi::Linker;
use wasmi::errors::LinkerError;

pub(super) fn link(linker: &mut Linker<Contexts>) -> Result<(), LinkerError> {
    hostcalls! { linker, "env",
        fn proxy_define_metric(guest, kind: u32, name: u32, size: u32, out_id: u32) {
            let name = guest.text(name, size)?;
            let Some(id) = guest.contexts_mut().metrics.define(kind, name) else {
                return Ok(Status::BadArgument);
            };
            if let Some(key) = guest.contexts().metrics.find(id) {
                guest.process().metrics.define(key);
            }
            guest.write(out_id, &id.to_le_bytes())
        }

        fn proxy_increment_metric(guest, id: u32, offset: i64) {
            let Some(key) = guest.contexts().metrics.find(id) else { return Ok(unknown(id)) };
            Ok(guest.process().metrics.increment(key, offset))
        }

        fn proxy_record_metric(guest, id: u32, value: u64) {
            let Some(key) = guest.contexts().metrics.find(id) else { return Ok(Status::NotFound) };
            guest.process().metrics.record(key, value);
            Ok(Status::Ok)
        }

        fn proxy_get_metric(guest, id: u32, out_value: u32) {
            let Some(key) = guest.contexts().metrics.find(id) else { return Ok(Status::NotFound) };
            let value = guest.process().metrics.value(key);
            match value {
                Some(value) => guest.write(out_value, &value.to_le_bytes()),
                None => Ok(Status::BadArgument),
            }
        }
    }
}

/// The status of an increment of a metric that there is not: by its id it may be a histogram, which has none.
fn unknown(id: u32) -> Status {
    if id % 4 == Kind::Histogram as u32 { Status::BadArgument } else { Status::NotFound }
}
