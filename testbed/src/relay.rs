//! A relay between a proxy and a healthy server that cuts, delays and falsifies what it carries.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::accepting::accept;
use crate::{clock, ports};

const EVERY: Duration = Duration::from_millis(20);
/// The length of a part that ends within the status line or the first header of any response, bytes.
const HEAD_PART: usize = 24;

/// How the relay treats bytes from now on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wire {
    /// Carries them unchanged.
    Pass,
    /// Closes the listener and resets the connections: connecting is refused.
    Refuse,
    /// Accepts connections and carries nothing, like a stopped process; bytes that arrive are carried later.
    Hang,
    /// Delivers a response in small parts.
    Drip {
        /// The size of a part, bytes.
        bytes: usize,
        /// The time between two parts.
        every: Duration,
    },
    /// Resets the connection within a response's headers.
    CutHead,
    /// Resets the connection before a response's last byte.
    CutBody,
    /// Sends these bytes instead of a response, and closes.
    Say(Arc<[u8]>),
    /// Answers with headers that announce no length, and an event every 20 ms without end.
    Endless,
    /// Adds an HTTP/2 GOAWAY after the server's first bytes.
    GoAway {
        /// Whether all open streams will still be answered; otherwise none will, and the connection ends.
        graceful: bool,
    },
}

impl Wire {
    /// The answer of a TLS server to a client that does not use TLS: the fatal alert 40, `handshake_failure` (RFC 5246,
    /// 7.2).
    pub fn tls_alert() -> Self {
        Self::Say([0x15, 0x03, 0x01, 0x00, 0x02, 0x02, 0x28].as_slice().into())
    }

    /// Bytes that belong to no protocol.
    pub fn garbage() -> Self {
        Self::Say((0_u32..512).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect())
    }
}

/// A running relay. Dropping it ends it.
#[derive(Debug)]
pub struct Relay {
    address: SocketAddr,
    wire: watch::Sender<Wire>,
    server: JoinHandle<()>,
}

impl Relay {
    /// Starts a relay that carries everything to `target`.
    pub async fn start(target: SocketAddr) -> Result<Self> {
        let listener = ports::listen().await?;
        let address = listener.local_addr()?;
        let wire = watch::Sender::new(Wire::Pass);
        let state = wire.subscribe();
        let carried = state.clone();
        let refuses = |wire: &Wire| *wire == Wire::Refuse;
        let server = tokio::spawn(accept(listener, address, state, refuses, move |stream| {
            tokio::spawn(carry(stream, target, carried.clone()));
        }));
        Ok(Self { address, wire, server })
    }

    /// The address that it listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Treats all bytes like this from now on.
    pub fn set(&self, wire: Wire) {
        self.wire.send_replace(wire);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// Carries one connection until either side ends it or it is cut.
async fn carry(mut client: TcpStream, target: SocketAddr, wire: watch::Receiver<Wire>) {
    let _ = client.set_nodelay(true);
    let Ok(mut server) = TcpStream::connect(target).await else {
        let _ = client.set_zero_linger();
        return;
    };
    let _ = server.set_nodelay(true);
    if exchange(&mut client, &mut server, wire).await.is_none() {
        let _ = client.set_zero_linger();
    }
}

/// Carries both directions; `None` if the connection is to be reset.
async fn exchange(
    client: &mut TcpStream,
    server: &mut TcpStream,
    mut wire: watch::Receiver<Wire>,
) -> Option<()> {
    let (mut asked, mut answered) = (vec![0; 16 << 10], vec![0; 16 << 10]);
    let mut told_to_go = false;
    loop {
        let now = wire.borrow_and_update().clone();
        match now {
            Wire::Refuse => return None,
            Wire::Hang => {
                wire.changed().await.ok()?;
                continue;
            }
            _ => {}
        }
        tokio::select! {
            read = client.read(&mut asked) => {
                let count = read.ok().filter(|count| *count > 0);
                // When the client ends its side, the connection ends.
                let Some(count) = count else { return Some(()) };
                match now {
                    Wire::Say(bytes) => {
                        client.write_all(&bytes).await.ok()?;
                        return client.shutdown().await.ok();
                    }
                    Wire::Endless => return events(client, &mut wire).await,
                    _ => server.write_all(&asked[..count]).await.ok()?,
                }
            }
            read = server.read(&mut answered) => {
                let count = read.ok().filter(|count| *count > 0)?;
                let part = &answered[..count];
                match now {
                    Wire::Drip { bytes, every } => drip(client, part, bytes, every).await?,
                    Wire::CutHead => {
                        client.write_all(&part[..count.min(HEAD_PART)]).await.ok()?;
                        return None;
                    }
                    Wire::CutBody => {
                        client.write_all(&part[..count - 1]).await.ok()?;
                        return None;
                    }
                    Wire::GoAway { graceful } => {
                        client.write_all(part).await.ok()?;
                        if !std::mem::replace(&mut told_to_go, true) {
                            client.write_all(&go_away(graceful)).await.ok()?;
                        }
                        if !graceful {
                            return client.shutdown().await.ok();
                        }
                    }
                    _ => client.write_all(part).await.ok()?,
                }
            }
            changed = wire.changed() => changed.ok()?,
        }
    }
}

async fn drip(client: &mut TcpStream, part: &[u8], bytes: usize, every: Duration) -> Option<()> {
    for drop in part.chunks(bytes.max(1)) {
        client.write_all(drop).await.ok()?;
        clock::sleep(every).await;
    }
    Some(())
}

/// Sends a response that never ends, until the client or the setting ends it.
async fn events(client: &mut TcpStream, wire: &mut watch::Receiver<Wire>) -> Option<()> {
    let head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n";
    client.write_all(head).await.ok()?;
    loop {
        client.write_all(b"data: tick\n\n").await.ok()?;
        tokio::select! {
            () = clock::sleep(EVERY) => {}
            _ = wire.changed() => return None,
        }
    }
}

/// A GOAWAY frame without an error (RFC 9113, 6.8), which says that all streams, or none, will be answered.
fn go_away(graceful: bool) -> [u8; 17] {
    let last: u32 = if graceful { 0x7fff_ffff } else { 0 };
    let mut frame = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    frame[9..13].copy_from_slice(&last.to_be_bytes());
    frame
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::{Backend, Config};
    use crate::http;

    #[tokio::test]
    async fn what_it_carries_is_whole_until_it_is_cut() -> Result<()> {
        let backend =
            Backend::start(Config { median: Duration::from_millis(1), ..Config::default() }).await?;
        let relay = Relay::start(backend.address()).await?;
        let at = relay.address();
        assert_eq!(http::get(at, "/bytes/100000").await?.body.len(), 100_000);
        let drip = Wire::Drip { bytes: 50, every: Duration::from_millis(1) };
        for (wire, good) in [(Wire::Pass, true), (drip, true), (Wire::CutHead, false), (Wire::CutBody, false)]
        {
            relay.set(wire.clone());
            assert_eq!(http::get(at, "/").await.is_ok_and(|answer| answer.status == 200), good, "{wire:?}");
        }
        for wire in [Wire::tls_alert(), Wire::garbage(), Wire::Refuse] {
            relay.set(wire.clone());
            assert!(http::get(at, "/").await.is_err(), "{wire:?}");
        }
        relay.set(Wire::Pass);
        let back = || async { http::get(at, "/").await.is_ok().then_some(()) };
        crate::wait::until("the listener to be back", Duration::from_secs(5), back).await
    }
}
