//! Hostcalls on a stream as a whole, and on the effective context.

use super::hostcalls;
use crate::abi::{Status, stream_type};
use crate::contexts::Contexts;
use crate::headers::Headers;
use crate::stream::LocalResponse;
use wasmi::Linker;
use wasmi::errors::LinkerError;

pub(super) fn link(linker: &mut Linker<Contexts>) -> Result<(), LinkerError> {
    hostcalls! { linker, "env",
        fn proxy_send_local_response(
            guest, status: u32, details: u32, details_size: u32, body: u32, body_size: u32,
            headers: u32, headers_size: u32, grpc_status: i32
        ) {
            let response = LocalResponse {
                status,
                headers: Headers::decode(&guest.bytes(headers, headers_size)?),
                body: guest.bytes(body, body_size)?,
                details: guest.text(details, details_size)?,
                grpc_status,
            };
            guest.check_headers(&response.headers);
            match guest.contexts().stream() {
                Some(stream) if stream.borrow().local_response.is_none() => {
                    stream.borrow_mut().local_response = Some(response);
                }
                Some(_) => guest.fault_found("a second time"),
                None => guest.fault_found("of a plugin, which has no request"),
            }
            Ok(Status::Ok)
        }

        fn proxy_continue_stream(guest, kind: u32) {
            match kind {
                stream_type::REQUEST | stream_type::RESPONSE => {
                    guest.contexts().stream().iter().for_each(|stream| stream.borrow_mut().resume());
                    Ok(Status::Ok)
                }
                // Of TCP; an HTTP stream has none.
                stream_type::DOWNSTREAM => Ok(Status::Ok),
                stream_type::UPSTREAM => Ok(Status::Unimplemented),
                _ => Ok(Status::BadArgument),
            }
        }

        fn proxy_close_stream(guest, kind: u32) {
            match kind {
                stream_type::REQUEST | stream_type::RESPONSE => {
                    guest.contexts().stream().iter().for_each(|stream| stream.borrow_mut().reset = true);
                    Ok(Status::Ok)
                }
                stream_type::DOWNSTREAM | stream_type::UPSTREAM => Ok(Status::Ok),
                _ => Ok(Status::BadArgument),
            }
        }

        fn proxy_set_effective_context(guest, context: u32) {
            if !guest.contexts().exists(context) {
                return Ok(Status::BadArgument);
            }
            guest.contexts_mut().active = context;
            Ok(Status::Ok)
        }
    }
}
