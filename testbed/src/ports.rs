//! Free TCP ports on 127.0.0.1.

use std::collections::HashSet;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Mutex;

use anyhow::{Context, Result};

/// Everything in the testbed listens here.
pub const LOOPBACK: Ipv4Addr = Ipv4Addr::LOCALHOST;

/// A port that nobody listens on now and that this process has not handed out before.
pub fn free() -> Result<SocketAddr> {
    static HANDED_OUT: Mutex<Option<HashSet<u16>>> = Mutex::new(None);
    let mut handed_out = HANDED_OUT.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let handed_out = handed_out.get_or_insert_default();
    loop {
        let listener = TcpListener::bind((LOOPBACK, 0)).context("no free port on 127.0.0.1")?;
        let address = listener.local_addr()?;
        if handed_out.insert(address.port()) {
            return Ok(address);
        }
    }
}
