//! The load generator as a program of its own, for containers and experiments:
//!
//! ```text
//! cargo run --release --package demo --bin load -- --target 127.0.0.1:10000 --rate 300
//! ```

use testbed::{anyhow, tokio};

#[tokio::main(crate = "testbed::tokio")]
async fn main() -> anyhow::Result<()> {
    testbed::load::run_from_command_line().await
}
