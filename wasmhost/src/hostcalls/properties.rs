//! Properties: the request's own first, then the process's, then what the host knows of the plugin.

use super::hostcalls;
use crate::abi::Status;
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
            // Guests set filter state, which only a stream has.
            let Some(stream) = guest.contexts().stream() else { return Ok(Status::NotFound) };
            stream.borrow_mut().properties.set(path, value);
            Ok(Status::Ok)
        }
    }
}

fn find(contexts: &Contexts, path: &[u8]) -> Option<Vec<u8>> {
    let own = contexts.stream().and_then(|stream| stream.borrow().properties.get(path));
    let shared = || contexts.process.borrow().properties.get(path);
    let plugin = || match path {
        b"plugin_root_id" | b"plugin_name" => contexts.root().map(|root| root.root_id.clone().into_bytes()),
        _ => None,
    };
    own.or_else(shared).or_else(plugin)
}
