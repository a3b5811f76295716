//! Hostcalls for HTTP calls: recorded here, answered by the test.

use super::hostcalls;
use crate::abi::{Status, buffer, map};
use crate::calls::HttpCall;
use crate::contexts::Contexts;
use crate::guest::Guest;
use crate::headers::Headers;
use crate::stream::Stream;
use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;
use wasmi::errors::LinkerError;
use wasmi::{Error, Linker};

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
                guest.contexts_mut().unsent = true;
                return Ok(Status::InternalFailure);
            }
            guest.check_headers(&headers);
            let contexts = guest.contexts_mut();
            let (vm, context, token) = (contexts.vm, contexts.root_of_active(), contexts.next_token());
            let timeout = Duration::from_millis(timeout_ms.into());
            let process = guest.process();
            let made_at = process.now;
            drop(process);
            let filtered = upstream_filter(&mut guest, &cluster, &headers, &body)?;
            if guest.process().hasty.contains(&cluster) {
                guest.callback("proxy_on_http_call_response", context, &[context, token, 0, 0, 0])?;
                return guest.write(out_token, &token.to_le_bytes());
            }
            let call = HttpCall { vm, token, cluster, headers, body, timeout, made_at, context, filtered };
            guest.process().calls.push(call);
            guest.write(out_token, &token.to_le_bytes())
        }
    }
}

/// Runs the cluster's upstream filters before the hostcall returns, as Envoy does for filters in this VM.
fn upstream_filter(
    guest: &mut Guest<'_>,
    cluster: &str,
    headers: &Headers,
    body: &[u8],
) -> Result<Option<u32>, Error> {
    let contexts = guest.contexts_mut();
    let Some(root) = contexts.upstream_filters.get(cluster).copied() else { return Ok(None) };
    if contexts.unsent {
        // Envoy puts the failure of the other call off for ever.
        return Err(Error::new("an upstream filter runs after a call that was not sent"));
    }
    let context = contexts.next_context();
    let stream = Rc::new(RefCell::new(Stream::default()));
    contexts.streams.insert(context, (root, stream.clone()));
    guest.callback("proxy_on_context_create", context, &[context, root])?;
    stream.borrow_mut().maps[map::REQUEST_HEADERS as usize].arrive(headers.clone());
    let end = u32::from(body.is_empty());
    guest.callback("proxy_on_request_headers", context, &[context, headers.len() as u32, end])?;
    stream.borrow_mut().maps[map::REQUEST_HEADERS as usize].open = false;
    if !body.is_empty() {
        stream.borrow_mut().bodies[buffer::REQUEST_BODY as usize] = Some(body.to_vec());
        guest.callback("proxy_on_request_body", context, &[context, body.len() as u32, 1])?;
        stream.borrow_mut().bodies[buffer::REQUEST_BODY as usize] = None;
    }
    Ok(Some(context))
}
