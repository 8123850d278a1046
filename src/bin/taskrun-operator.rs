//! The operator's binary: see [`taskrun_operator::cli`].

fn main() -> std::process::ExitCode {
    taskrun_operator::cli::main()
}
