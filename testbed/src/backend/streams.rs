//! Responses that stream: endless events, upgraded connections, calls in both directions, and bodies of any size.
//!
//! | request | answer |
//! |---|---|
//! | `GET /events` | headers at once, then an event every 20 ms (`text/event-stream`), for as long as the client listens |
//! | `Upgrade: websocket` | 101, then every byte comes back |
//! | `POST` of `application/grpc` to `/chat` | every message comes back as it arrives, the status in the trailers |
//! | `GET /bytes/N` | N bytes |

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming};
use hyper::header::{CONNECTION, CONTENT_TYPE, HeaderName, HeaderValue, UPGRADE};
use hyper::{HeaderMap, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::time::{Interval, interval};

use super::metrics::Held;
use super::service::{Answered, named};
use super::{Behaviour, Shared};

const EVENT: &[u8] = b"data: tick\n\n";
const EVERY: Duration = Duration::from_millis(20);
const PART: usize = 16 << 10;

/// The kind of stream that a request asks for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Asked {
    Echo,
    Events,
    /// Ends with this gRPC status.
    Chat(u8),
    Bytes(usize),
}

/// The stream that a request asks for, if it asks for one.
pub(super) fn asked<B>(behaviour: Behaviour, request: &Request<B>) -> Option<Asked> {
    let path = request.uri().path();
    match behaviour {
        Behaviour::FailFast { .. } => None,
        _ if request.headers().contains_key(UPGRADE) => Some(Asked::Echo),
        _ if path == "/events" => Some(Asked::Events),
        Behaviour::Grpc { in_trailers: false, .. } if path == "/chat" => None,
        Behaviour::Grpc { status, .. } if path == "/chat" => Some(Asked::Chat(status)),
        _ if path == "/chat" => Some(Asked::Chat(0)),
        _ => Some(Asked::Bytes(path.strip_prefix("/bytes/")?.parse().ok()?)),
    }
}

/// Begins the response; `in_flight` is held until its end.
pub(super) fn answer(
    shared: &Shared,
    asked: Asked,
    request: Request<Incoming>,
    in_flight: Held,
) -> Response<Answered> {
    let (kind, body) = match asked {
        Asked::Echo => return echo(shared, request, in_flight),
        Asked::Events => {
            ("text/event-stream", Events { next: interval(EVERY), _in_flight: in_flight }.boxed())
        }
        Asked::Chat(status) => {
            let body = Chat { incoming: request.into_body(), status: Some(status), _in_flight: in_flight };
            ("application/grpc", body.boxed())
        }
        Asked::Bytes(left) => ("application/octet-stream", Zeros { left, _in_flight: in_flight }.boxed()),
    };
    let mut response = named(shared, StatusCode::OK, body);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

/// Answers 101, then echoes every byte.
fn echo(shared: &Shared, request: Request<Incoming>, in_flight: Held) -> Response<Answered> {
    let protocol = request.headers().get(UPGRADE).cloned();
    let mut cuts = shared.cuts.subscribe();
    cuts.mark_unchanged();
    tokio::spawn(async move {
        let _in_flight = in_flight;
        let Ok(upgraded) = hyper::upgrade::on(request).await else { return };
        let (mut from, mut to) = tokio::io::split(TokioIo::new(upgraded));
        tokio::select! {
            _ = tokio::io::copy(&mut from, &mut to) => {}
            _ = cuts.changed() => {}
        }
    });
    let mut response = named(shared, StatusCode::SWITCHING_PROTOCOLS, http_body_util::Empty::new().boxed());
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("upgrade"));
    response.headers_mut().extend(protocol.map(|protocol| (UPGRADE, protocol)));
    response
}

struct Events {
    next: Interval,
    _in_flight: Held,
}

impl Body for Events {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        ready!(self.next.poll_tick(cx));
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(EVENT)))))
    }
}

struct Chat {
    incoming: Incoming,
    /// The final status, until it has been sent.
    status: Option<u8>,
    _in_flight: Held,
}

impl Body for Chat {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.status.is_none() {
            return Poll::Ready(None);
        }
        if let Some(Ok(frame)) = ready!(Pin::new(&mut self.incoming).poll_frame(cx))
            && let Ok(message) = frame.into_data()
        {
            return Poll::Ready(Some(Ok(Frame::data(message))));
        }
        let status = HeaderValue::from(u16::from(self.status.take().unwrap_or(0)));
        let trailers = HeaderMap::from_iter([(HeaderName::from_static("grpc-status"), status)]);
        Poll::Ready(Some(Ok(Frame::trailers(trailers))))
    }
}

struct Zeros {
    left: usize,
    _in_flight: Held,
}

impl Body for Zeros {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        static ZEROS: [u8; PART] = [0; PART];
        let part = self.left.min(PART);
        self.left -= part;
        Poll::Ready((part > 0).then(|| Ok(Frame::data(Bytes::from_static(&ZEROS[..part])))))
    }
}
