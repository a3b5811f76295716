//! Hostcalls on properties: the request's own first, then the process's, then those of the plugin.

use super::hostcalls;
use crate::abi::{Status, map};
use crate::contexts::Contexts;
use crate::headers::Headers;
use wasmi::Linker;
use wasmi::errors::LinkerError;

pub(super) fn link(linker: &mut Linker<Contexts>) -> Result<(), LinkerError> {
    hostcalls! { linker, "env",
        fn proxy_get_property(guest, path: u32, size: u32, out_data: u32, out_size: u32) {
            let path = guest.bytes(path, size)?;
            if path.is_empty() {
                return Ok(Status::SerializationFailure);
            }
            match find(guest.contexts(), &path) {
                Some(value) => guest.give(&value, out_data, out_size),
                None => Ok(Status::NotFound),
            }
        }

        fn proxy_set_property(guest, path: u32, size: u32, value: u32, value_size: u32) {
            let (path, value) = (guest.bytes(path, size)?, guest.bytes(value, value_size)?);
            // Guests set filter state, which only streams have.
            let Some(stream) = guest.contexts().stream() else { return Ok(Status::NotFound) };
            stream.borrow_mut().state.set(path, value);
            Ok(Status::Ok)
        }
    }
}

/// The root id of every plugin, unlike its name.
const ROOT_ID: &[u8] = b"root";

/// The header maps among the properties. Envoy reads them, so headers are absent if the callback has no map.
const MAPS: [(&[u8], u32); 3] = [
    (b"request\0headers\0", map::REQUEST_HEADERS),
    (b"response\0headers\0", map::RESPONSE_HEADERS),
    (b"response\0trailers\0", map::RESPONSE_TRAILERS),
];

fn find(contexts: &Contexts, path: &[u8]) -> Option<Vec<u8>> {
    let whole = MAPS.iter().find(|(prefix, _)| prefix.strip_suffix(b"\0") == Some(path));
    if let Some((_, kind)) = whole {
        let stream = contexts.stream()?;
        let stream = stream.borrow();
        return Some(stream.readable(*kind).map(Headers::encode).unwrap_or_default());
    }
    let in_map = MAPS.iter().find_map(|(prefix, kind)| Some((path.strip_prefix(*prefix)?, *kind)));
    if let Some((name, kind)) = in_map {
        let name = core::str::from_utf8(name).ok()?;
        let stream = contexts.stream()?;
        let stream = stream.borrow();
        let values: Vec<&[u8]> = stream.readable(kind)?.all(name).collect();
        return (!values.is_empty()).then(|| values.join(&b','));
    }
    let own = contexts.stream().and_then(|stream| stream.borrow().properties.get(path));
    let shared = || contexts.process.lock().properties.get(path);
    let plugin = || match path {
        b"plugin_name" => contexts.root().map(|root| root.name.clone().into_bytes()),
        b"plugin_root_id" => contexts.root().map(|_| ROOT_ID.to_vec()),
        _ => None,
    };
    // What a guest has set is found by a name without parts, and hides nothing.
    let set = || contexts.stream().and_then(|stream| stream.borrow().state.get(path));
    own.or_else(shared).or_else(plugin).or_else(|| if path.contains(&0) { None } else { set() })
}
