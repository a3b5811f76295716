//! The same as the root's example `simulate`, without building what the other examples need.

fn main() -> std::process::ExitCode {
    simulator::cli::main()
}
