//! Hostcalls on buffers: configuration and bodies.

use super::hostcalls;
use crate::abi::{Status, buffer};
use crate::contexts::Contexts;
use wasmi::Linker;
use wasmi::errors::LinkerError;

pub(super) fn link(linker: &mut Linker<Contexts>) -> Result<(), LinkerError> {
    hostcalls! { linker, "env",
        fn proxy_get_buffer_bytes(guest, kind: u32, start: u32, size: u32, out_data: u32, out_size: u32) {
            let Some(bytes) = guest.contexts().buffer(kind) else { return Ok(absent(kind)) };
            let rest = bytes.get(start as usize..).unwrap_or_default();
            let part = &rest[..rest.len().min(size as usize)];
            // Envoy's host leaves the results unset here, which the guest has set to null.
            if part.is_empty() { Ok(Status::Ok) } else { guest.give(part, out_data, out_size) }
        }

        fn proxy_set_buffer_bytes(guest, kind: u32, start: u32, size: u32, data: u32, data_size: u32) {
            let bytes = guest.bytes(data, data_size)?;
            if guest.contexts().buffer(kind).is_none() {
                return Ok(absent(kind));
            }
            // Only the body of the running phase can be changed.
            let Some(stream) = guest.contexts().stream() else { return Ok(Status::BadArgument) };
            let mut stream = stream.borrow_mut();
            let body = stream.bodies.get_mut(kind as usize).and_then(Option::as_mut);
            let Some(body) = body else { return Ok(Status::BadArgument) };
            let (start, size) = (start as usize, size as usize);
            // Prepend, replace all, or append: Envoy supports no other edit.
            let replaced = match (start, size) {
                (0, 0) => 0..0,
                (0, size) if size >= body.len() => 0..body.len(),
                (start, _) if start >= body.len() => body.len()..body.len(),
                _ => return Ok(Status::BadArgument),
            };
            body.splice(replaced, bytes);
            Ok(Status::Ok)
        }
    }
}

/// The status of a buffer that is not there.
fn absent(kind: u32) -> Status {
    if kind > buffer::CALL_DATA { Status::BadArgument } else { Status::NotFound }
}
