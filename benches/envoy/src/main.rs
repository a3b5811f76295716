//! `make bench-envoy`: what evenkeel costs a real Envoy, beside no filter at all, an empty wasm filter and three lines of Lua.
//!
//! For each number of workers every carrier gets an Envoy of its own. They are measured one after the other, in short turns
//! that are repeated with new processes, and the others are stopped meanwhile (SIGSTOP): what disturbs the machine disturbs all of them alike.
//! Each figure is the median over the turns, each ratio the median of the ratios within a turn.
//!
//! Processor time is Envoy's own, as the kernel counts it. Backends and load run in this process, on the same cores.

mod backend;
mod carrier;
mod closed;
mod flags;
mod machine;
mod measure;
mod report;
mod statistics;

use testbed::anyhow::Result;
use testbed::{process, tokio};

#[tokio::main(crate = "testbed::tokio")]
async fn main() -> Result<()> {
    let Some(flags) = flags::read(std::env::args_os())? else {
        print!("{}", flags::HELP);
        return Ok(());
    };
    process::until_signal(bench(flags)).await
}

async fn bench(flags: flags::Flags) -> Result<()> {
    let machine = machine::Machine::of_this()?;
    println!("{machine}");
    let results = measure::all(&flags).await?;
    let text = report::markdown(&flags, &machine, &results);
    println!("\n{text}");
    if let Some(path) = &flags.into {
        std::fs::write(path, text)?;
    }
    Ok(())
}
