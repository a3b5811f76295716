//! The same as the example `simulate` in the root crate, without building the dependencies of other examples.

fn main() -> std::process::ExitCode {
    simulator::cli::main()
}
