//! A fake Prometheus or admin interface that answers with given bytes and counts how often it is asked.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use anyhow::Result;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::{ports, wait};

/// The answer to give.
#[derive(Clone, Debug)]
pub enum Lie {
    /// Sends these bytes, then closes the connection.
    Bytes(Arc<[u8]>),
    /// The first bytes once, the second repeatedly until the client gives up.
    Endless(Arc<[u8]>, Arc<[u8]>),
    /// Nothing, until the client gives up.
    Silence,
}

/// A running server of false answers. Dropping it ends it.
#[derive(Debug)]
pub struct Liar {
    address: SocketAddr,
    lie: Arc<Mutex<Lie>>,
    asked: Arc<AtomicU64>,
    server: JoinHandle<()>,
}

impl Liar {
    /// Starts with the answer of a Prometheus without data.
    pub async fn start() -> Result<Self> {
        let listener = TcpListener::bind((ports::LOOPBACK, 0)).await?;
        let address = listener.local_addr()?;
        let lie =
            Arc::new(Mutex::new(json(r#"{"status":"success","data":{"resultType":"vector","result":[]}}"#)));
        let asked = Arc::new(AtomicU64::new(0));
        let (answer, count) = (lie.clone(), asked.clone());
        let server = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(answer_one(stream, answer.clone(), count.clone()));
            }
        });
        Ok(Self { address, lie, asked, server })
    }

    /// The address that it listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Number of Prometheus queries or requests for clusters that it has received.
    pub fn asked(&self) -> u64 {
        self.asked.load(Ordering::SeqCst)
    }

    /// Answers `lie` from now on.
    pub fn set(&self, lie: Lie) {
        *lock(&self.lie) = lie;
    }

    /// Answers `lie` from now on, and waits until it has been asked twice.
    pub async fn tell(&self, what: &str, lie: Lie) -> Result<()> {
        self.set(lie);
        let before = self.asked();
        wait::until(&format!("two queries while the answer is {what}"), Duration::from_secs(15), || async {
            (self.asked() >= before + 2).then_some(())
        })
        .await
    }
}

impl Drop for Liar {
    fn drop(&mut self) {
        self.server.abort();
    }
}

fn lock(lie: &Mutex<Lie>) -> MutexGuard<'_, Lie> {
    lie.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

async fn answer_one(mut stream: TcpStream, lie: Arc<Mutex<Lie>>, asked: Arc<AtomicU64>) {
    let (mut request, mut chunk) = (Vec::new(), [0; 4096]);
    while !request.windows(4).any(|end| end == b"\r\n\r\n") {
        match stream.read(&mut chunk).await {
            Ok(size @ 1..) => request.extend_from_slice(&chunk[..size]),
            _ => return,
        }
    }
    let counted = request.starts_with(b"GET /api/v1/query?") || request.starts_with(b"GET /clusters");
    asked.fetch_add(u64::from(counted), Ordering::SeqCst);
    let answer = lock(&lie).clone();
    match answer {
        Lie::Bytes(bytes) => {
            let _the_asker_may_have_left = stream.write_all(&bytes).await;
            let _ = stream.shutdown().await;
        }
        Lie::Endless(head, part) => {
            let mut sent = stream.write_all(&head).await;
            while sent.is_ok() {
                sent = stream.write_all(&part).await;
            }
        }
        // Reading ends when the client gives up.
        Lie::Silence => while let Ok(1..) = stream.read(&mut chunk).await {},
    }
}

/// A response with this status, content type and body.
pub fn http(status: &str, kind: &str, body: impl AsRef<[u8]>) -> Lie {
    let body = body.as_ref();
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    raw([head.as_bytes(), body].concat())
}

/// A response that is valid HTTP, with this body.
pub fn json(body: impl AsRef<[u8]>) -> Lie {
    http("200 OK", "application/json", body)
}

/// A response that begins with this body and never ends.
pub fn endless(begin: &str) -> Lie {
    let head =
        format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n\r\n{begin}");
    Lie::Endless(head.as_bytes().into(), vec![b' '; 64 << 10].into())
}

/// Arbitrary bytes.
pub fn raw(bytes: impl AsRef<[u8]>) -> Lie {
    Lie::Bytes(bytes.as_ref().into())
}
