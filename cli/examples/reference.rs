//! Updates the field tables of `docs/configuration.md`, from standard input to standard output: `make schema`.

use std::io::{Read, Write};

use anyhow::Result;

fn main() -> Result<()> {
    let mut document = String::new();
    std::io::stdin().read_to_string(&mut document)?;
    Ok(std::io::stdout().write_all(evenkeel_cli::schema::reference::text(&document)?.as_bytes())?)
}
