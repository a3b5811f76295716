//! HTTP calls from the guest: recorded here, answered by the test.

use super::hostcalls;
use crate::abi::Status;
use crate::calls::HttpCall;
use crate::contexts::Contexts;
use crate::headers::Headers;
use std::time::Duration;
use wasmi::Linker;
use wasmi::errors::LinkerError;

pub(super) fn link(linker: &mut Linker<Contexts>) -> Result<(), LinkerError> {
    hostcalls! { linker, "env",
        fn proxy_http_call(
            guest, cluster: u32, cluster_size: u32, headers: u32, headers_size: u32, body: u32, body_size: u32,
            _trailers: u32, _trailers_size: u32, timeout_ms: u32, out_token: u32
        ) {
            let cluster = guest.text(cluster, cluster_size)?;
            let headers = Headers::decode(&guest.bytes(headers, headers_size)?);
            let body = guest.bytes(body, body_size)?;
            let addressed = [":path", ":method", ":authority"].iter().all(|name| headers.get(name).is_some());
            if !addressed || !guest.process().clusters.contains(&cluster) {
                return Ok(Status::BadArgument);
            }
            if guest.process().blocked.contains(&cluster) {
                return Ok(Status::InternalFailure);
            }
            let contexts = guest.contexts_mut();
            let (vm, context, token) = (contexts.vm, contexts.active, contexts.next_token());
            let timeout = Duration::from_millis(timeout_ms.into());
            let mut process = guest.process();
            let made_at = process.now;
            process.calls.push(HttpCall { vm, token, cluster, headers, body, timeout, made_at, context });
            drop(process);
            guest.write(out_token, &token.to_le_bytes())
        }
    }
}
