//! Handwritten HTTP/1.1: headers exactly as a client may send them, repeated and in any case.

use std::net::SocketAddr;
use std::time::Duration;

use testbed::anyhow::{Context, Result, ensure};
use testbed::tokio::io::{AsyncReadExt, AsyncWriteExt};
use testbed::tokio::net::TcpStream;
use testbed::tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(20);

/// The head of a response.
pub struct Head(String);

impl Head {
    /// The status code.
    pub fn status(&self) -> u16 {
        self.0.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0)
    }

    /// Value of a header; `name` in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.0.lines().filter_map(|line| line.split_once(": ")).find(|(n, _)| *n == name).map(|(_, v)| v)
    }
}

/// GETs `path` with these header lines, over a new connection.
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
    timeout(PATIENCE, exchange).await.with_context(|| format!("no answer from {server}"))?
}

/// A connection for several requests.
pub struct Connection {
    stream: TcpStream,
    /// Bytes received but not yet taken.
    read: Vec<u8>,
}

impl Connection {
    pub async fn open(server: SocketAddr) -> Result<Self> {
        Ok(Self { stream: TcpStream::connect(server).await?, read: Vec::new() })
    }

    /// Requests `path` with these header lines; waits for the head of the response.
    pub async fn ask(&mut self, path: &str, lines: &[&str]) -> Result<Head> {
        let mut request = format!("GET {path} HTTP/1.1\r\nHost: e2e\r\n");
        lines.iter().for_each(|line| request.extend([line, "\r\n"]));
        self.send(format!("{request}\r\n").as_bytes()).await?;
        let head = self.until(b"\r\n\r\n").await?;
        Ok(Head(String::from_utf8_lossy(&head).replace("\r\n", "\n")))
    }

    /// Sends these bytes as they are.
    pub async fn send(&mut self, bytes: &[u8]) -> Result<()> {
        Ok(self.stream.write_all(bytes).await?)
    }

    /// Reads up to and including `mark`.
    pub async fn until(&mut self, mark: &[u8]) -> Result<Vec<u8>> {
        let past = |read: &[u8]| Some(read.windows(mark.len()).position(|bytes| bytes == mark)? + mark.len());
        self.part(past).await.with_context(|| format!("no {:?} came", String::from_utf8_lossy(mark)))
    }

    /// Reads `count` bytes.
    pub async fn take(&mut self, count: usize) -> Result<Vec<u8>> {
        let part = self.part(|read| (read.len() >= count).then_some(count));
        part.await.with_context(|| format!("no {count} bytes came"))
    }

    async fn part(&mut self, end: impl Fn(&[u8]) -> Option<usize>) -> Result<Vec<u8>> {
        timeout(PATIENCE, async {
            loop {
                if let Some(end) = end(&self.read) {
                    let rest = self.read.split_off(end);
                    return Ok(std::mem::replace(&mut self.read, rest));
                }
                let mut part = [0; 4096];
                let count = self.stream.read(&mut part).await?;
                ensure!(count > 0, "it was closed after {:?}", String::from_utf8_lossy(&self.read));
                self.read.extend_from_slice(&part[..count]);
            }
        })
        .await?
    }
}
