//! Hostcalls on properties: the request's own first, then the process's, then those of the plugin.

use super::hostcalls;
use crate::abi::{Status, map};
use crate::contexts::Contexts;
use wasmi::Linker;
use wasmi::errors::LinkerError;

pub(super) fn link(linker: &mut Linker<Contexts>) -> Result<(), LinkerError> {
    hostcalls! { linker, "env",
        fn proxy_get_property(guest, path: u32, size: u32, out_data: u32, out_size: u32) {
            let path = guest.bytes(path, size)?;
            match find(guest.contexts(), &path) {
                Some(value) => guest.give(&value, out_data, out_size),
                None => Ok(Status::NotFound),
            }
        }

        fn proxy_set_property(guest, path: u32, size: u32, value: u32, value_size: u32) {
            let (path, value) = (guest.bytes(path, size)?, guest.bytes(value, value_size)?);
            // Guests set filter state, which only streams have.
            let Some(stream) = guest.contexts().stream() else { return Ok(Status::NotFound) };
            stream.borrow_mut().properties.set(path, value);
            Ok(Status::Ok)
        }
    }
}

fn find(contexts: &Contexts, path: &[u8]) -> Option<Vec<u8>> {
    // Envoy reads these from the header map, so they are absent if the callback has none.
    if let Some(name) = path.strip_prefix(b"request\0headers\0") {
        let name = core::str::from_utf8(name).ok()?;
        let stream = contexts.stream()?;
        let stream = stream.borrow();
        return stream.readable(map::REQUEST_HEADERS)?.all(name).next().map(<[u8]>::to_vec);
    }
    let own = contexts.stream().and_then(|stream| stream.borrow().properties.get(path));
    let shared = || contexts.process.lock().properties.get(path);
    let plugin = || match path {
        b"plugin_root_id" | b"plugin_name" => contexts.root().map(|root| root.root_id.clone().into_bytes()),
        _ => None,
    };
    own.or_else(shared).or_else(plugin)
}
