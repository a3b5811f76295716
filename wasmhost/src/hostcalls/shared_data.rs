//! Hostcalls on shared data.

use super::hostcalls;
use crate::abi::Status;
use crate::contexts::Contexts;
use wasmi::Linker;
use wasmi::errors::LinkerError;

pub(super) fn link(linker: &mut Linker<Contexts>) -> Result<(), LinkerError> {
    hostcalls! { linker, "env",
        fn proxy_get_shared_data(guest, key: u32, size: u32, out_data: u32, out_size: u32, out_cas: u32) {
            let key = guest.text(key, size)?;
            guest.pass(&key)?;
            let found = guest.process().shared_data.get(&key);
            let Some((value, cas)) = found else { return Ok(Status::NotFound) };
            guest.give(&value, out_data, out_size)?;
            guest.write(out_cas, &cas.to_le_bytes())
        }

        fn proxy_set_shared_data(guest, key: u32, size: u32, value: u32, value_size: u32, cas: u32) {
            let (key, value) = (guest.text(key, size)?, guest.bytes(value, value_size)?);
            guest.pass(&key)?;
            let mut process = guest.process();
            if let Some(others) = process.races.remove(&key) {
                let overwritten = process.shared_data.set(&key, others, 0);
                debug_assert!(overwritten, "cas 0 always overwrites");
            }
            let stored = process.shared_data.set(&key, value, cas);
            drop(process);
            Ok(if stored { Status::Ok } else { Status::CasMismatch })
        }
    }
}
