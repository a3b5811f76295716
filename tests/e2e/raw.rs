//! HTTP/1.1 by hand: headers exactly as a client may send them, repeated and in any case.

use std::net::SocketAddr;
use std::time::Duration;

use testbed::anyhow::{Context, Result};
use testbed::tokio::io::{AsyncReadExt, AsyncWriteExt};
use testbed::tokio::net::TcpStream;
use testbed::tokio::time::timeout;

/// An answer's head.
pub struct Head(String);

impl Head {
    /// The status code.
    pub fn status(&self) -> u16 {
        self.0.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0)
    }

    /// A header's value; the name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.0.lines().filter_map(|line| line.split_once(": ")).find(|(n, _)| *n == name).map(|(_, v)| v)
    }
}

/// GET `path` with these header lines, over a connection of its own.
pub async fn get(server: SocketAddr, path: &str, lines: &[String]) -> Result<Head> {
    let exchange = async {
        let mut stream = TcpStream::connect(server).await?;
        let mut request = format!("GET {path} HTTP/1.1\r\nHost: e2e\r\nConnection: close\r\n");
        lines.iter().for_each(|line| request.extend([line, "\r\n"]));
        stream.write_all(format!("{request}\r\n").as_bytes()).await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        let text = String::from_utf8_lossy(&answer);
        Ok(Head(text.split("\r\n\r\n").next().unwrap_or_default().replace("\r\n", "\n")))
    };
    timeout(Duration::from_secs(10), exchange).await.with_context(|| format!("no answer from {server}"))?
}
