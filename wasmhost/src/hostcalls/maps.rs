//! Hostcalls on header maps. A map that the running callback must not see is a bad argument, not an empty map.

use super::hostcalls;
use crate::abi::{Status, map};
use crate::contexts::Contexts;
use crate::guest::Guest;
use crate::headers::Headers;
use wasmi::Linker;
use wasmi::errors::LinkerError;

pub(super) fn link(linker: &mut Linker<Contexts>) -> Result<(), LinkerError> {
    hostcalls! { linker, "env",
        fn proxy_get_header_map_value(guest, kind: u32, name: u32, size: u32, out_data: u32, out_size: u32) {
            let name = guest.text(name, size)?;
            match guest.contexts().read_map(kind, |headers| headers.get(&name).map(<[u8]>::to_vec)) {
                Some(Some(value)) => guest.give(&value, out_data, out_size),
                Some(None) => Ok(Status::NotFound),
                None => {
                    guest.refused(kind, &name);
                    Ok(absent(guest.contexts(), kind))
                }
            }
        }

        fn proxy_get_header_map_pairs(guest, kind: u32, out_data: u32, out_size: u32) {
            if kind > map::LAST {
                return Ok(Status::BadArgument);
            }
            let pairs = guest.contexts().read_map(kind, Headers::encode).unwrap_or_default();
            guest.give(&pairs, out_data, out_size)
        }

        fn proxy_get_header_map_size(guest, kind: u32, out_size: u32) {
            // Envoy asks for a map to be written, which has others phases than one to be read.
            let mut size = 0;
            let found = guest.contexts().write_map(kind, |headers| {
                size = headers.pairs().iter().map(|(name, value)| name.len() + value.len()).sum::<usize>();
            });
            match found {
                Some(()) => guest.write(out_size, &(size as u32).to_le_bytes()),
                None => Ok(Status::BadArgument),
            }
        }

        fn proxy_set_header_map_pairs(guest, kind: u32, data: u32, size: u32) {
            let pairs = Headers::decode(&guest.bytes(data, size)?);
            guest.check_headers(&pairs);
            let outcome = guest.contexts().write_map(kind, |headers| *headers = pairs);
            Ok(written(&mut guest, (kind, "every header"), outcome))
        }

        fn proxy_add_header_map_value(guest, kind: u32, name: u32, size: u32, value: u32, value_size: u32) {
            let (name, value) = (guest.text(name, size)?, guest.bytes(value, value_size)?);
            guest.check_headers(&Headers::new(&[(&name, &String::from_utf8_lossy(&value))]));
            let outcome = guest.contexts().write_map(kind, |headers| headers.add(&name, &value));
            Ok(written(&mut guest, (kind, &name), outcome))
        }

        fn proxy_replace_header_map_value(guest, kind: u32, name: u32, size: u32, value: u32, value_size: u32) {
            let (name, value) = (guest.text(name, size)?, guest.bytes(value, value_size)?);
            guest.check_headers(&Headers::new(&[(&name, &String::from_utf8_lossy(&value))]));
            let outcome = guest.contexts().write_map(kind, |headers| headers.replace(&name, &value));
            Ok(written(&mut guest, (kind, &name), outcome))
        }

        fn proxy_remove_header_map_value(guest, kind: u32, name: u32, size: u32) {
            let name = guest.text(name, size)?;
            if matches!(name.as_str(), ":method" | ":path" | ":authority" | ":status") {
                guest.fault_found(&format!("of {name:?}, without which Envoy answers 502 itself"));
            }
            let outcome = guest.contexts().write_map(kind, |headers| headers.remove(&name));
            Ok(written(&mut guest, (kind, &name), outcome))
        }
    }
}

/// In the access log phase an absent map reads as "not found"; in other phases it is a bad argument.
fn absent(contexts: &Contexts, kind: u32) -> Status {
    let logging = contexts.stream().is_some_and(|stream| stream.borrow().logging);
    if logging && kind <= map::LAST { Status::NotFound } else { Status::BadArgument }
}

fn written(guest: &mut Guest<'_>, (kind, name): (u32, &str), outcome: Option<()>) -> Status {
    if outcome.is_none() {
        guest.refused(kind, name);
        return Status::BadArgument;
    }
    Status::Ok
}
