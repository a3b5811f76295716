//! A closed loop: each connection sends its next request when it has the answer to the one before.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use testbed::anyhow::{Result, ensure};
use testbed::tokio::io::{AsyncReadExt, AsyncWriteExt};
use testbed::tokio::net::TcpStream;
use testbed::tokio::{self, task::JoinHandle};

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: bench\r\nuser-agent: bench-envoy\r\naccept: */*\r\n\r\n";
const BODY: usize = 2;

/// A loop that runs until it is dropped.
pub struct Loop {
    answered: Arc<AtomicU64>,
    tasks: Vec<JoinHandle<()>>,
}

impl Loop {
    /// Over so many connections.
    pub async fn start(target: SocketAddr, connections: usize) -> Result<Loop> {
        let mut begun = Loop { answered: Arc::default(), tasks: Vec::new() };
        for _ in 0..connections {
            let stream = TcpStream::connect(target).await?;
            stream.set_nodelay(true)?;
            begun.tasks.push(tokio::spawn(ask(stream, begun.answered.clone())));
        }
        Ok(begun)
    }

    /// Requests answered so far.
    pub fn answered(&self) -> Result<u64> {
        ensure!(!self.tasks.iter().any(JoinHandle::is_finished), "a request of the closed loop failed");
        Ok(self.answered.load(Ordering::Relaxed))
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

async fn ask(mut stream: TcpStream, answered: Arc<AtomicU64>) {
    let mut buffer = vec![0; 16 << 10];
    loop {
        if stream.write_all(REQUEST).await.is_err() {
            return;
        }
        let mut filled = 0;
        loop {
            match stream.read(&mut buffer[filled..]).await {
                Ok(read @ 1..) => filled += read,
                _ => return,
            }
            let head = buffer[..filled].windows(4).position(|part| part == b"\r\n\r\n");
            if head.is_some_and(|head| filled >= head + 4 + BODY) {
                break;
            }
        }
        if !buffer.starts_with(b"HTTP/1.1 200") {
            return;
        }
        answered.fetch_add(1, Ordering::Relaxed);
    }
}
