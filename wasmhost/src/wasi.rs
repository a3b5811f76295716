//! The part of WASI that Rust's standard library calls in a filter: an environment, no files, no arguments.

use crate::abi::Level;
use crate::contexts::Contexts;
use crate::guest::Guest;
use crate::hostcalls::hostcalls;
use wasmi::errors::LinkerError;
use wasmi::{Caller, Error, Linker};

const SUCCESS: u32 = 0;
const BAD_DESCRIPTOR: u32 = 8;
const NOT_IMPLEMENTED: u32 = 52;
const NOT_SUPPORTED: u32 = 58;
/// The clocks: the wall clock and the monotonic one.
const CLOCKS: core::ops::Range<u32> = 0..2;
const STDOUT: u32 = 1;
const STDERR: u32 = 2;

/// `NAME=value` with a closing zero, for each variable.
fn environment(guest: &Guest<'_>) -> Vec<Vec<u8>> {
    let process = guest.process();
    process.environment.iter().map(|(name, value)| format!("{name}={value}\0").into_bytes()).collect()
}

pub(crate) fn link(linker: &mut Linker<Contexts>) -> Result<(), LinkerError> {
    linker.func_wrap(
        "wasi_snapshot_preview1",
        "proc_exit",
        |caller: Caller<'_, Contexts>, status: i32| -> Result<(), Error> {
            Guest::enter(caller, "proc_exit");
            Err(Error::new(format!("proc_exit({status})")))
        },
    )?;
    hostcalls! { linker, "wasi_snapshot_preview1",
        fn fd_write(guest, descriptor: u32, vectors: u32, count: u32, out_written: u32) {
            // Envoy logs standard output as info and standard error as error.
            let level = match descriptor {
                STDOUT => Level::Info,
                STDERR => Level::Error,
                _ => return Ok(BAD_DESCRIPTOR),
            };
            let mut bytes = Vec::new();
            for index in 0..count {
                let (data, size) = (guest.word(vectors + index * 8)?, guest.word(vectors + index * 8 + 4)?);
                bytes.extend(guest.bytes(data, size)?);
            }
            guest.process().log(guest.contexts().vm, level, String::from_utf8_lossy(&bytes).trim_end().to_owned());
            guest.write(out_written, &(bytes.len() as u32).to_le_bytes())?;
            Ok(SUCCESS)
        }

        fn fd_fdstat_get(guest, descriptor: u32, out_stat: u32) {
            if descriptor != STDOUT && descriptor != STDERR {
                return Ok(BAD_DESCRIPTOR);
            }
            guest.write(out_stat, &[0; 24])?;
            Ok(SUCCESS)
        }

        fn fd_prestat_get(_guest, _descriptor: u32, _out: u32) { Ok(BAD_DESCRIPTOR) }
        fn fd_prestat_dir_name(_guest, _descriptor: u32, _path: u32, _size: u32) { Ok(BAD_DESCRIPTOR) }
        fn fd_read(_guest, _descriptor: u32, _vectors: u32, _count: u32, _out: u32) { Ok(NOT_IMPLEMENTED) }
        fn fd_seek(_guest, _descriptor: u32, _offset: i64, _whence: u32, _out: u32) { Ok(NOT_IMPLEMENTED) }
        fn fd_close(_guest, _descriptor: u32) { Ok(NOT_IMPLEMENTED) }
        fn sched_yield(_guest) { Ok(SUCCESS) }

        fn environ_get(guest, values: u32, bytes: u32) {
            let mut at = bytes;
            for (index, entry) in (0..).zip(environment(&guest)) {
                guest.write(values + index * 4, &at.to_le_bytes())?;
                guest.write(at, &entry)?;
                at += entry.len() as u32;
            }
            Ok(SUCCESS)
        }

        fn args_get(_guest, _values: u32, _bytes: u32) { Ok(SUCCESS) }

        fn environ_sizes_get(guest, out_count: u32, out_size: u32) {
            let entries = environment(&guest);
            let size: usize = entries.iter().map(Vec::len).sum();
            guest.write(out_count, &(entries.len() as u32).to_le_bytes())?;
            guest.write(out_size, &(size as u32).to_le_bytes())?;
            Ok(SUCCESS)
        }

        fn args_sizes_get(guest, out_count: u32, out_size: u32) {
            guest.write(out_count, &[0; 4])?;
            guest.write(out_size, &[0; 4])?;
            Ok(SUCCESS)
        }

        fn random_get(guest, data: u32, size: u32) {
            let bytes = guest.contexts_mut().random.fill(size as usize);
            guest.write(data, &bytes)?;
            Ok(SUCCESS)
        }

        // Both clocks are the fake one.
        fn clock_time_get(guest, clock: u32, _precision: u64, out_time: u32) {
            if !CLOCKS.contains(&clock) {
                return Ok(NOT_SUPPORTED);
            }
            let vm = guest.contexts().vm;
            let now = guest.process().time_of(vm);
            guest.write(out_time, &now.to_le_bytes())?;
            Ok(SUCCESS)
        }
    }
}
