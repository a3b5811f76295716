//! The demo's backend as a program of its own, for containers and experiments:
//!
//! ```text
//! cargo run --release --package demo --bin backend -- --listen 127.0.0.1:8081 --behaviour slow:10
//! ```

use testbed::{anyhow, tokio};

#[tokio::main(crate = "testbed::tokio")]
async fn main() -> anyhow::Result<()> {
    testbed::backend::run_from_command_line().await
}
