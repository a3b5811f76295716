//! A client with a connection for each HTTP version, reopened when it is closed.

use std::convert::Infallible;
use std::fmt;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::{Body, Frame, Incoming};
use hyper::client::conn::{http1, http2};
use hyper::header::{HeaderName, HeaderValue};
use hyper::{HeaderMap, Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Interval, interval, timeout};

use super::kinds::{Ask, Sent, bytes};

/// A timeout beyond what any request may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// Number of attempts per request, each further one on a new connection: a connection that breaks before the request is
/// sent says nothing about the request.
const TRIES: usize = 5;
const BETWEEN_PARTS: Duration = Duration::from_millis(4);
const HELLO: &[u8] = b"\x81\x85\0\0\0\0hello";

type Outgoing = BoxBody<Bytes, Infallible>;

/// The end of a request.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum End {
    /// A complete response.
    Whole { status: u16, grpc_status: Option<u32> },
    /// The response broke off.
    Cut(u16),
    /// There was no response.
    NoAnswer(String),
    /// The client cancelled.
    Left,
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            End::Whole { status, grpc_status: None } => write!(f, "{status}"),
            End::Whole { status, grpc_status: Some(code) } => write!(f, "{status}, gRPC {code}"),
            End::Cut(status) => write!(f, "{status} that broke off"),
            End::NoAnswer(why) => write!(f, "no answer ({why})"),
            End::Left => write!(f, "client left"),
        }
    }
}

pub(super) struct Client {
    target: SocketAddr,
    one: Option<http1::SendRequest<Outgoing>>,
    two: Option<http2::SendRequest<Outgoing>>,
}

impl Client {
    pub fn new(target: SocketAddr) -> Client {
        Client { target, one: None, two: None }
    }

    /// Sends the request; returns its end.
    pub async fn ask(&mut self, ask: Ask) -> End {
        let exchange = async {
            if ask.upgrade {
                return self.upgrade(&ask).await;
            }
            match self.answer(&ask).await {
                Ok(response) => read(response).await,
                Err(why) => End::NoAnswer(why),
            }
        };
        match timeout(ask.leaves.unwrap_or(PATIENCE), exchange).await {
            Ok(end) => {
                if !matches!(end, End::Whole { .. }) || ask.leaves.is_some() {
                    self.one = None;
                }
                end
            }
            Err(_) => {
                // The rest of the response would be read as that of the next request.
                self.one = None;
                if ask.leaves.is_some() { End::Left } else { End::NoAnswer("none in time".to_owned()) }
            }
        }
    }

    async fn answer(&mut self, ask: &Ask) -> Result<Response<Incoming>, String> {
        if ask.http2 {
            let mut sender = self.two().await?;
            return match sender.send_request(self.request(ask)?).await {
                Ok(response) => Ok(response),
                Err(error) => {
                    self.two = None;
                    Err(format!("{error:?}"))
                }
            };
        }
        for _ in 0..TRIES {
            let mut sender = self.one().await?;
            match sender.try_send_request(self.request(ask)?).await {
                Ok(response) => {
                    self.one = Some(sender);
                    return Ok(response);
                }
                Err(mut error) => {
                    // The server had closed the idle connection, and the request was not sent.
                    if error.take_message().is_none() {
                        return Err(format!("{:?}", error.error()));
                    }
                }
            }
        }
        Err("no connection lasts".to_owned())
    }

    async fn one(&mut self) -> Result<http1::SendRequest<Outgoing>, String> {
        if let Some(mut sender) = self.one.take()
            && sender.ready().await.is_ok()
        {
            return Ok(sender);
        }
        let io = TokioIo::new(connect(self.target).await?);
        let (sender, connection) = http1::handshake(io).await.map_err(|error| error.to_string())?;
        tokio::spawn(connection);
        Ok(sender)
    }

    async fn two(&mut self) -> Result<http2::SendRequest<Outgoing>, String> {
        if let Some(mut sender) = self.two.clone()
            && sender.ready().await.is_ok()
        {
            return Ok(sender);
        }
        let io = TokioIo::new(connect(self.target).await?);
        let (sender, connection) =
            http2::handshake(TokioExecutor::new(), io).await.map_err(|error| error.to_string())?;
        tokio::spawn(connection);
        self.two = Some(sender.clone());
        Ok(sender)
    }

    fn request(&self, ask: &Ask) -> Result<Request<Outgoing>, String> {
        let uri = match ask.http2 {
            true => format!("http://{}{}", self.target, ask.path),
            false => ask.path.clone(),
        };
        let mut request = Request::builder().method(ask.method.clone()).uri(uri);
        if !ask.http2 {
            request = request.header("host", self.target.to_string());
        }
        for (name, value) in &ask.headers {
            request = request.header(*name, value);
        }
        if ask.body == Sent::WithTrailers && !ask.http2 {
            request = request.header("trailer", "x-end");
        }
        request.body(outgoing(ask.body)).map_err(|error| error.to_string())
    }

    /// Written by hand, because what follows the response is not HTTP.
    async fn upgrade(&self, ask: &Ask) -> End {
        let failed = |error: std::io::Error| End::NoAnswer(error.to_string());
        let mut stream = match connect(self.target).await {
            Ok(stream) => stream,
            Err(why) => return End::NoAnswer(why),
        };
        let request = format!(
            "GET {} HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: ZXZlbiBrZWVsLCBldmVuIQ==\r\n\r\n",
            ask.path, self.target
        );
        let mut head = Vec::new();
        if let Err(error) = stream.write_all(request.as_bytes()).await {
            return failed(error);
        }
        while !head.ends_with(b"\r\n\r\n") {
            match stream.read_u8().await {
                Ok(byte) => head.push(byte),
                Err(error) => return failed(error),
            }
        }
        let status = String::from_utf8_lossy(&head).split(' ').nth(1).and_then(|code| code.parse().ok());
        let status = status.unwrap_or(0);
        let mut echo = [0; HELLO.len()];
        let echoed = async {
            stream.write_all(HELLO).await?;
            stream.read_exact(&mut echo).await
        };
        match echoed.await {
            Ok(_) if echo == HELLO => End::Whole { status, grpc_status: None },
            _ => End::Cut(status),
        }
    }
}

async fn connect(target: SocketAddr) -> Result<TcpStream, String> {
    let stream = TcpStream::connect(target).await.map_err(|error| error.to_string())?;
    stream.set_nodelay(true).map_err(|error| error.to_string())?;
    Ok(stream)
}

async fn read(response: Response<Incoming>) -> End {
    let (head, mut body) = response.into_parts();
    let code = |headers: &HeaderMap| headers.get("grpc-status")?.to_str().ok()?.parse().ok();
    let (status, mut grpc_status) = (head.status.as_u16(), code(&head.headers));
    while let Some(frame) = body.frame().await {
        match frame {
            Ok(frame) => grpc_status = grpc_status.or_else(|| frame.trailers_ref().and_then(code)),
            Err(_) => return End::Cut(status),
        }
    }
    End::Whole { status, grpc_status }
}

fn outgoing(body: Sent) -> Outgoing {
    match body {
        Sent::Nothing => Empty::new().boxed(),
        Sent::Bytes(size) => Full::new(bytes(size)).boxed(),
        Sent::Message => Full::new(Bytes::from_static(b"\0\0\0\0\x05hello")).boxed(),
        Sent::WithTrailers => {
            let end = (HeaderName::from_static("x-end"), HeaderValue::from_static("here"));
            let trailers = HeaderMap::from_iter([end]);
            Full::new(bytes(1_000)).with_trailers(async { Some(Ok(trailers)) }).boxed()
        }
        Sent::Slowly(left) => Slowly { next: interval(BETWEEN_PARTS), left }.boxed(),
    }
}

struct Slowly {
    next: Interval,
    left: u32,
}

impl Body for Slowly {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        ready!(self.next.poll_tick(cx));
        self.left -= 1;
        Poll::Ready(Some(Ok(Frame::data(bytes(500)))))
    }
}
