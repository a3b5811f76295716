//! Handling of a request.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue, TRAILER};
use hyper::{HeaderMap, Request, Response, StatusCode};

use super::{Behaviour, Kind, Mode, SeenRequest, Shared, behaviour, lock, metrics, streams, tasks, work};
use crate::clock;

/// The body of a response.
pub(super) type Answered = BoxBody<Bytes, Infallible>;

/// An error that makes the connection be reset instead of answered.
#[derive(Debug)]
pub(super) struct Cut;

impl std::fmt::Display for Cut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("cut")
    }
}

impl std::error::Error for Cut {}

/// Handles one request. It is dropped when the client cancels, and then leaves the queue.
pub(super) async fn handle(
    shared: Arc<Shared>,
    request: Request<Incoming>,
) -> Result<Response<Answered>, Cut> {
    let mode = Mode { behaviour: asked_for(&request).unwrap_or(shared.mode().behaviour), ..shared.mode() };
    match mode.behaviour {
        Behaviour::Reset => return Err(Cut),
        Behaviour::BlackHole => {
            let _in_flight = (!is_scrape(&request)).then(|| shared.metrics.arrived());
            return std::future::pending().await;
        }
        _ => {}
    }
    if is_scrape(&request) {
        let mut response = answer(&shared, StatusCode::OK, shared.metrics.text());
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(metrics::CONTENT_TYPE));
        return Ok(response);
    }
    let (start, in_flight) = (clock::now(), shared.metrics.arrived());
    if shared.record {
        lock(&shared.seen).push(seen(&request));
    }
    if let Some(asked) = streams::asked(mode.behaviour, &request) {
        let response = streams::answer(&shared, asked, request, in_flight);
        shared.metrics.answered(response.status().as_u16(), clock::now() - start);
        return Ok(response);
    }
    let work = work_of(&request);
    // Bodies are read to their end, so that the connection can be reused.
    let bytes = drain(request.into_body()).await;
    let mut response = respond(&shared, mode, work, start).await;
    response.headers_mut().insert("x-received", HeaderValue::from(bytes));
    shared.metrics.answered(response.status().as_u16(), clock::now() - start);
    Ok(response)
}

/// The behaviour that a request sets for itself, by a path that ends in `/say/fail:404` for example.
fn asked_for(request: &Request<Incoming>) -> Option<Behaviour> {
    request.uri().path().split_once("/say/")?.1.parse().ok()
}

/// The work that a request asks for, by a path such as `/work/20ms`.
fn work_of(request: &Request<Incoming>) -> Option<Duration> {
    behaviour::duration(request.uri().path().strip_prefix("/work/")?).ok()
}

/// Reads a body until it ends or breaks off, and returns its length.
async fn drain(mut body: Incoming) -> u64 {
    let mut bytes = 0;
    while let Some(Ok(frame)) = body.frame().await {
        bytes += frame.data_ref().map_or(0, |part| part.len() as u64);
    }
    bytes
}

async fn respond(shared: &Shared, mode: Mode, work: Option<Duration>, start: Instant) -> Response<Answered> {
    match (mode.behaviour, shared.kind) {
        (Behaviour::FailFast { status, after }, _) => {
            clock::sleep_until(start + after).await;
            answer(
                shared,
                StatusCode::from_u16(status).unwrap_or(StatusCode::SERVICE_UNAVAILABLE),
                "failing\n",
            )
        }
        (Behaviour::FailSome { status, ratio }, _) if shared.work.chance(ratio) => answer(
            shared,
            StatusCode::from_u16(status).unwrap_or(StatusCode::SERVICE_UNAVAILABLE),
            "failing\n",
        ),
        (Behaviour::Grpc { status, in_trailers }, _) => grpc(shared, status, in_trailers),
        (Behaviour::GrpcWeb { status }, _) => grpc_web(shared, status),
        (_, Kind::Worker { .. }) => {
            // While everything is stopped nothing is accepted either.
            clock::sleep_until(work::end_of_work(start, Duration::ZERO, mode)).await;
            match tasks::accept(shared, work) {
                true => answer(shared, StatusCode::ACCEPTED, "accepted\n"),
                false => answer(shared, StatusCode::SERVICE_UNAVAILABLE, "queue full\n"),
            }
        }
        (behaviour, Kind::Service { queue }) => {
            let permit = match shared.slots.try_acquire() {
                Ok(permit) => permit,
                Err(_) => {
                    let full = queue.is_some_and(|bound| shared.metrics.counts().queued >= bound as u64);
                    if full {
                        return answer(shared, StatusCode::SERVICE_UNAVAILABLE, "queue full\n");
                    }
                    let _waits = shared.metrics.waits();
                    // The semaphore is never closed, and it is fair: first in, first out.
                    match shared.slots.acquire().await {
                        Ok(permit) => permit,
                        Err(_) => return answer(shared, StatusCode::SERVICE_UNAVAILABLE, "closed\n"),
                    }
                }
            };
            let time = shared.work.next(behaviour, work);
            clock::sleep_until(work::end_of_work(clock::now(), time, mode)).await;
            shared.metrics.worked(time);
            drop(permit);
            match behaviour {
                Behaviour::ErrorRatio(ratio) if shared.work.chance(ratio) => {
                    answer(shared, StatusCode::INTERNAL_SERVER_ERROR, "failed\n")
                }
                Behaviour::TellsToFail => {
                    let mut response = answer(shared, StatusCode::OK, "done\n");
                    let name = HeaderName::from_static("x-envoy-immediate-health-check-fail");
                    response.headers_mut().insert(name, HeaderValue::from_static("true"));
                    response
                }
                _ => answer(shared, StatusCode::OK, "done\n"),
            }
        }
    }
}

fn answer(shared: &Shared, status: StatusCode, body: impl Into<Bytes>) -> Response<Answered> {
    named(shared, status, Full::new(body.into()).boxed())
}

fn grpc(shared: &Shared, status: u8, in_trailers: bool) -> Response<Answered> {
    let status = HeaderValue::from(u16::from(status));
    let body = Full::new(Bytes::from_static(b"\0\0\0\0\0"));
    let mut response = if in_trailers {
        let trailers = HeaderMap::from_iter([(HeaderName::from_static("grpc-status"), status)]);
        let mut response =
            named(shared, StatusCode::OK, body.with_trailers(async { Some(Ok(trailers)) }).boxed());
        // Without it hyper sends no trailers over HTTP/1.1.
        response.headers_mut().insert(TRAILER, HeaderValue::from_static("grpc-status"));
        response
    } else {
        let mut response = named(shared, StatusCode::OK, Full::default().boxed());
        response.headers_mut().insert("grpc-status", status);
        response
    };
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}

fn grpc_web(shared: &Shared, status: u8) -> Response<Answered> {
    const TRAILERS: u8 = 0x80;
    let trailers = format!("grpc-status:{status}\r\n");
    let length = u32::try_from(trailers.len()).unwrap_or(0).to_be_bytes();
    let body = [&b"\0\0\0\0\0"[..], &[TRAILERS], &length, trailers.as_bytes()].concat();
    let mut response = answer(shared, StatusCode::OK, body);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc-web+proto"));
    response
}

/// A response with the backend's name and a load report.
pub(super) fn named(shared: &Shared, status: StatusCode, body: Answered) -> Response<Answered> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    // An address is always a valid header value.
    if let Ok(name) = HeaderValue::from_str(&shared.name) {
        response.headers_mut().insert("x-backend", name);
    }
    if let Ok(report) = HeaderValue::from_str(&shared.metrics.load_report()) {
        response.headers_mut().insert("endpoint-load-metrics", report);
    }
    response
}

fn is_scrape(request: &Request<Incoming>) -> bool {
    request.uri().path() == "/metrics"
}

fn seen(request: &Request<Incoming>) -> SeenRequest {
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    SeenRequest {
        path: request.uri().path_and_query().map_or_else(String::new, ToString::to_string),
        headers: request.headers().iter().map(|(name, value)| (name.to_string(), text(value))).collect(),
    }
}
