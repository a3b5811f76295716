//! Hostcalls for log, clock and ticks.

use super::hostcalls;
use crate::abi::{Level, Status};
use crate::contexts::Contexts;
use std::time::Duration;
use wasmi::Linker;
use wasmi::errors::LinkerError;

pub(super) fn link(linker: &mut Linker<Contexts>) -> Result<(), LinkerError> {
    hostcalls! { linker, "env",
        fn proxy_log(guest, level: u32, message: u32, size: u32) {
            let Some(level) = Level::from_abi(level) else { return Ok(Status::BadArgument) };
            let message = guest.text(message, size)?;
            guest.process().log(guest.contexts().vm, level, message);
            Ok(Status::Ok)
        }

        fn proxy_get_log_level(guest, out_level: u32) {
            guest.write(out_level, &(Level::Info as u32).to_le_bytes())
        }

        fn proxy_get_current_time_nanoseconds(guest, out_time: u32) {
            let vm = guest.contexts().vm;
            let now = guest.process().time_of(vm);
            guest.write(out_time, &now.to_le_bytes())
        }

        fn proxy_set_tick_period_milliseconds(guest, period: u32) {
            let contexts = guest.contexts_mut();
            // A call from a stream applies to its root.
            let active = contexts.streams.get(&contexts.active).map_or(contexts.active, |(root, _)| *root);
            if let Some(root) = contexts.roots.get_mut(&active) {
                root.tick_period = (period > 0).then(|| Duration::from_millis(period.into()));
            }
            Ok(Status::Ok)
        }
    }
}
