//! Free TCP ports on 127.0.0.1.

use std::collections::HashSet;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::ops::Range;
use std::sync::Mutex;

use anyhow::{Result, bail};
use rand::RngExt;

/// The address that everything in the testbed listens on.
pub const LOOPBACK: Ipv4Addr = Ipv4Addr::LOCALHOST;

/// The ports that are handed out, below those that systems use for outgoing connections (Linux: from 32768 on): there
/// any connection could take the port between its choice and its use, or while a backend refuses connections.
const RANGE: Range<u16> = 10_000..32_000;
const ATTEMPTS: usize = 1_000;

/// A port without a listener that this process has not handed out before. It is drawn at random, so that processes that
/// draw at the same time rarely choose the same.
pub fn free() -> Result<SocketAddr> {
    static HANDED_OUT: Mutex<Option<HashSet<u16>>> = Mutex::new(None);
    let mut handed_out = HANDED_OUT.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let handed_out = handed_out.get_or_insert_default();
    let mut random = rand::rng();
    for _ in 0..ATTEMPTS {
        let address = SocketAddr::from((LOOPBACK, random.random_range(RANGE)));
        if !handed_out.contains(&address.port()) && TcpListener::bind(address).is_ok() {
            handed_out.insert(address.port());
            return Ok(address);
        }
    }
    bail!("no free port on {LOOPBACK} within {RANGE:?}")
}

/// Listens on a free port. While another thread starts a process, that process holds the port that was just tried for a
/// moment: then another port is taken.
pub async fn listen() -> Result<tokio::net::TcpListener> {
    for _ in 0..ATTEMPTS {
        match tokio::net::TcpListener::bind(free()?).await {
            Err(error) if error.kind() == ErrorKind::AddrInUse => {}
            listener => return Ok(listener?),
        }
    }
    bail!("no port on {LOOPBACK} stays free")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_free_and_handed_out_once() -> Result<()> {
        let ports: Vec<SocketAddr> = (0..50).map(|_| free()).collect::<Result<_>>()?;
        assert_eq!(ports.iter().collect::<HashSet<_>>().len(), 50);
        let listeners: Vec<_> = ports.iter().map(TcpListener::bind).collect::<Result<_, _>>()?;
        assert_eq!(listeners.len(), 50);
        Ok(())
    }
}
