//! A listener that can be closed and reopened: while it is closed, connections are refused.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::clock;

const REBIND: Duration = Duration::from_millis(20);

/// Passes accepted connections to `accepted` until the task is aborted or the sender of the state is gone. While the
/// state `refuses`, there is no listener.
pub(crate) async fn accept<T>(
    listener: TcpListener,
    address: SocketAddr,
    mut state: watch::Receiver<T>,
    refuses: impl Fn(&T) -> bool,
    accepted: impl Fn(TcpStream),
) {
    let mut listener = Some(listener);
    loop {
        if refuses(&state.borrow_and_update()) {
            listener = None;
            if state.changed().await.is_err() {
                return;
            }
            continue;
        }
        let Some(open) = &listener else {
            listener = TcpListener::bind(address).await.ok();
            if listener.is_none() {
                clock::sleep(REBIND).await;
            }
            continue;
        };
        tokio::select! {
            connection = open.accept() => {
                if let Ok((stream, _)) = connection {
                    accepted(stream);
                }
            }
            changed = state.changed() => if changed.is_err() { return },
        }
    }
}
