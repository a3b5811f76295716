//! `evenkeel check FILE…`: 0 if all is well, 1 if a configuration has a fault, 2 if a file could not be read.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use evenkeel_cli::{check, schema};

/// evenkeel's configuration, checked before Envoy loads it.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Says what the filter would say of a configuration: every fault, with its place.
    ///
    /// FILE is the plugin's JSON, or YAML with that JSON in it: an Envoy configuration, a WasmPlugin, a TrafficExtension,
    /// an EnvoyFilter, an EnvoyExtensionPolicy, for the filter and for the native module; a folder stands for all YAML and JSON files below it, "-" for standard
    /// input. In an Envoy configuration the clusters and addresses that the plugin names have to be there, and among
    /// manifests nothing may collide with evenkeel's EnvoyFilter or policies. The status is 0 if all is well, 1 if there is a fault,
    /// 2 if a file cannot be read or contains no configuration of evenkeel.
    Check {
        /// What to check.
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
        /// Print the configuration in force as JSON: defaults filled in, secrets masked.
        #[arg(long)]
        effective: bool,
    },
    /// Prints the JSON Schema of the plugin's configuration, for editors.
    Schema,
}

fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::Check { files, effective } => check_all(&files, effective),
        Command::Schema => print_schema(),
    }
}

fn check_all(files: &[PathBuf], effective: bool) -> ExitCode {
    let report = check::all(files, effective);
    // A closed pipe is not an error.
    let said = std::io::stdout().write_all(report.output.as_bytes());
    let _ = said.and_then(|()| std::io::stderr().write_all(report.complaints.as_bytes()));
    ExitCode::from(report.status)
}

fn print_schema() -> ExitCode {
    match schema::text() {
        Ok(text) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
