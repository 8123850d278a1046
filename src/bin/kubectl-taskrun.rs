//! The plugin's binary: see [`taskrun_operator::plugin`].

fn main() -> std::process::ExitCode {
    taskrun_operator::plugin::main()
}
