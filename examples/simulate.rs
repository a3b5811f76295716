//! Runs the simulator: `cargo run --release --example simulate -- --help`.

fn main() -> std::process::ExitCode {
    simulator::cli::main()
}
