//! Endpoints that answer at once and cost next to nothing: they share the cores with what is measured.

use std::net::SocketAddr;

use testbed::anyhow::Result;
use testbed::ports;
use testbed::tokio::io::{AsyncReadExt, AsyncWriteExt};
use testbed::tokio::net::TcpStream;
use testbed::tokio::{self, task::JoinHandle};

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
const END: &[u8] = b"\r\n\r\n";

/// Running endpoints; dropping them ends them.
pub struct Backends {
    pub addresses: Vec<SocketAddr>,
    tasks: Vec<JoinHandle<()>>,
}

impl Backends {
    /// So many.
    pub async fn start(count: usize) -> Result<Backends> {
        let mut backends = Backends { addresses: Vec::new(), tasks: Vec::new() };
        for _ in 0..count {
            let listener = ports::listen().await?;
            backends.addresses.push(listener.local_addr()?);
            backends.tasks.push(tokio::spawn(async move {
                while let Ok((stream, _)) = listener.accept().await {
                    tokio::spawn(answer(stream));
                }
            }));
        }
        Ok(backends)
    }
}

impl Drop for Backends {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// Answers every request without a body that comes over this connection.
async fn answer(mut stream: TcpStream) {
    let _ = stream.set_nodelay(true);
    let (mut buffer, mut matched) = (vec![0; 16 << 10], 0);
    while let Ok(read @ 1..) = stream.read(&mut buffer).await {
        for byte in &buffer[..read] {
            matched = match *byte == END[matched] {
                true => matched + 1,
                false => usize::from(*byte == END[0]),
            };
            if matched == END.len() {
                matched = 0;
                if stream.write_all(ANSWER).await.is_err() {
                    return;
                }
            }
        }
    }
}
