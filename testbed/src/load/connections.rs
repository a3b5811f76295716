//! HTTP/1.1 connections used in turn, the one that has been idle longest first.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::http::uri::PathAndQuery;
use hyper::{HeaderMap, Method, Request, Uri};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::Outcome;

type Connection = SendRequest<Empty<Bytes>>;

#[derive(Debug)]
pub(super) struct Connections {
    target: SocketAddr,
    idle: Mutex<VecDeque<Connection>>,
}

#[derive(Debug)]
pub(super) struct Call {
    pub method: Method,
    /// The requests have them in turn.
    pub paths: Vec<PathAndQuery>,
    pub headers: HeaderMap,
    pub timeout: Duration,
}

impl Connections {
    /// Opens `count` connections in advance. If the target refuses, each request tries again.
    pub(super) async fn open(target: SocketAddr, count: usize) -> Self {
        let connections = Self { target, idle: Mutex::default() };
        for _ in 0..count {
            match connect(target).await {
                Some(connection) => connections.idle().push_back(connection),
                None => break,
            }
        }
        connections
    }

    /// Sends the request of this number; returns its outcome and the backend that responded.
    pub(super) async fn call(&self, call: &Call, number: usize) -> (Outcome, Option<String>) {
        tokio::time::timeout(call.timeout, self.exchange(call, number))
            .await
            .unwrap_or((Outcome::Timeout, None))
    }

    async fn exchange(&self, call: &Call, number: usize) -> (Outcome, Option<String>) {
        let mut failed = (Outcome::Disconnected, None);
        // An idle connection that its server has just closed says nothing about the request: take another.
        while let Some((mut connection, fresh)) = self.take().await {
            let response = match connection.try_send_request(call.request(number)).await {
                Ok(response) => response,
                Err(mut error) => match error.take_message() {
                    Some(_unsent) if !fresh => continue,
                    _ => return failed,
                },
            };
            let status = response.status().as_u16();
            let backend = response.headers().get("x-backend").and_then(|value| value.to_str().ok());
            failed.1 = backend.map(str::to_owned);
            if drain(response.into_body()).await.is_err() {
                return failed;
            }
            self.idle().push_back(connection);
            return (Outcome::Status(status), failed.1);
        }
        (Outcome::Refused, None)
    }

    /// A ready connection, and whether it is new; `None` if the target refuses.
    async fn take(&self) -> Option<(Connection, bool)> {
        loop {
            let Some(mut connection) = self.idle().pop_front() else { break };
            if connection.ready().await.is_ok() {
                return Some((connection, false));
            }
        }
        connect(self.target).await.map(|connection| (connection, true))
    }

    fn idle(&self) -> MutexGuard<'_, VecDeque<Connection>> {
        self.idle.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Call {
    fn request(&self, number: usize) -> Request<Empty<Bytes>> {
        let mut request = Request::new(Empty::new());
        *request.method_mut() = self.method.clone();
        let path = self.paths.get(number % self.paths.len().max(1));
        *request.uri_mut() = path.cloned().map(Uri::from).unwrap_or_default();
        *request.headers_mut() = self.headers.clone();
        request
    }
}

async fn connect(target: SocketAddr) -> Option<Connection> {
    let stream = TcpStream::connect(target).await.ok()?;
    stream.set_nodelay(true).ok()?;
    let (connection, driver) = http1::handshake(TokioIo::new(stream)).await.ok()?;
    tokio::spawn(driver);
    Some(connection)
}

async fn drain(mut body: hyper::body::Incoming) -> hyper::Result<()> {
    while let Some(frame) = body.frame().await {
        frame?;
    }
    Ok(())
}
