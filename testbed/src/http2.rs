//! An HTTP/2 client for calls that stream, such as those of gRPC: one connection, many calls.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use anyhow::{Result, anyhow};
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming};
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper::header::{HeaderName, HeaderValue};
use hyper::{HeaderMap, Method, Request, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(20);
/// The headers of a gRPC call.
const GRPC: [(&str, &str); 2] = [("content-type", "application/grpc"), ("te", "trailers")];

/// A connection for any number of concurrent calls.
#[derive(Clone, Debug)]
pub struct Client {
    sender: SendRequest<Parts>,
    authority: SocketAddr,
}

impl Client {
    /// Connects without TLS and with prior knowledge of HTTP/2.
    pub async fn open(server: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(server).await?;
        let (sender, connection) = handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(Self { sender, authority: server })
    }

    /// Begins a gRPC call with its first message and waits for the response headers. More messages may follow.
    pub async fn call(&self, path: &str, message: &[u8]) -> Result<Call> {
        let (parts, body) = unbounded_channel();
        parts.send(framed(message))?;
        Ok(Call { parts: Some(parts), ..self.send(path, &GRPC, body).await? })
    }

    /// Makes a complete call with one message; returns its `grpc-status`, from headers or trailers.
    pub async fn unary(&self, path: &str, message: &[u8]) -> Result<Option<u32>> {
        let (parts, body) = unbounded_channel();
        parts.send(framed(message))?;
        drop(parts);
        self.send(path, &GRPC, body).await?.finish().await
    }

    /// The same with these headers, and trailers if there are any.
    pub async fn unary_with(
        &self,
        path: &str,
        headers: &[(&str, &str)],
        message: &[u8],
        trailers: &[(&'static str, &'static str)],
    ) -> Result<Option<u32>> {
        let (parts, body) = unbounded_channel();
        parts.send(framed(message))?;
        if !trailers.is_empty() {
            let of = |(name, value): &(&'static str, &'static str)| {
                (HeaderName::from_static(name), HeaderValue::from_static(value))
            };
            parts.send(Frame::trailers(trailers.iter().map(of).collect()))?;
        }
        drop(parts);
        self.send(path, headers, body).await?.finish().await
    }

    async fn send(
        &self,
        path: &str,
        headers: &[(&str, &str)],
        body: UnboundedReceiver<Frame<Bytes>>,
    ) -> Result<Call> {
        let request = Request::builder().method(Method::POST).uri(format!("http://{}{path}", self.authority));
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        let request = request.body(Parts(body))?;
        let response = timeout(PATIENCE, self.sender.clone().send_request(request));
        let (head, body) = response.await.map_err(|_| anyhow!("no answer to {path}"))??.into_parts();
        Ok(Call { status: head.status, headers: head.headers, parts: None, body })
    }
}

/// A gRPC message on the wire: not compressed, its length, its bytes.
fn framed(message: &[u8]) -> Frame<Bytes> {
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes();
    Frame::data([&[0], &length[..], message].concat().into())
}

/// A call whose response has begun.
#[derive(Debug)]
pub struct Call {
    /// The HTTP status.
    pub status: StatusCode,
    /// The response headers; for a call that fails at once they have the `grpc-status`.
    pub headers: HeaderMap,
    parts: Option<UnboundedSender<Frame<Bytes>>>,
    body: Incoming,
}

impl Call {
    /// Sends a message.
    pub fn send(&self, message: &[u8]) -> Result<()> {
        let parts = self.parts.as_ref().ok_or_else(|| anyhow!("no more messages were to come"))?;
        Ok(parts.send(framed(message))?)
    }

    /// The next bytes of the response; `None` at its end.
    pub async fn next(&mut self) -> Result<Option<Bytes>> {
        while let Some(frame) = self.frame().await? {
            if let Ok(data) = frame.into_data() {
                return Ok(Some(data));
            }
        }
        Ok(None)
    }

    /// Ends the request and reads the response to its end; returns the `grpc-status`, from headers or trailers.
    pub async fn finish(mut self) -> Result<Option<u32>> {
        self.parts = None;
        let mut trailers = None;
        while let Some(frame) = self.frame().await? {
            trailers = frame.into_trailers().ok().or(trailers);
        }
        let status = |headers: &HeaderMap| headers.get("grpc-status")?.to_str().ok()?.parse().ok();
        Ok(status(&self.headers).or_else(|| status(&trailers?)))
    }

    async fn frame(&mut self) -> Result<Option<Frame<Bytes>>> {
        let frame = timeout(PATIENCE, self.body.frame()).await.map_err(|_| anyhow!("nothing more comes"))?;
        Ok(frame.transpose()?)
    }
}

/// A request body whose parts are sent into a channel.
#[derive(Debug)]
struct Parts(UnboundedReceiver<Frame<Bytes>>);

impl Body for Parts {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(cx).map(|part| part.map(Ok))
    }
}
